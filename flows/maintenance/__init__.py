"""Maintenance of a store and of this machine.

verify:  read and hash every file of a run
collect: garbage collection with a progress bar and a summary
doctor:  every check of `distill doctor`, and in what order
libraries: checks of the interpreter, the libraries, Prefect and Ray
machine: checks of the processor, the memory, the store and its disk
findings: the result of a check, and the child processes that find it
"""
