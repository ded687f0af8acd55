"""Maintenance of a store and of this machine.

verify:  read and hash every file of a run
collect: garbage collection with a progress bar and a summary
doctor:  every check of `distill doctor`, and in what order
libraries: checks of the interpreter, the libraries, Prefect and Ray
machine: checks of the processor, the memory, the disk and the folders that must be writable
accelerators: checks of NVIDIA's driver and devices, and of a compiler
storage: checks of a store, and of the clock against it
services: checks of a Ray cluster and of its Jobs API
findings: the result of a check, and the threads and child processes that find it
"""
