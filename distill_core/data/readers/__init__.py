"""Readers of dataset formats: one module per format, listed in `formats.READERS`.

record holds the interface `Reader` and the value `Record`; formats opens a reader by name.
"""
