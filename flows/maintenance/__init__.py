"""Maintenance of a store and of this machine.

verify:  read and hash every file of a run
collect: garbage collection with a progress bar and a summary
doctor:  checks of this machine and the store
"""
