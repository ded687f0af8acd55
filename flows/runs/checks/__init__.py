"""Checks of a run before it starts, by subject; `flows.runs.preflight` makes all of them.

request:  the run that is checked.
dataset:  splits, classes and labels.
teachers: checkpoints, and teachers of the store.
machine:  devices, memory and disk.
"""
