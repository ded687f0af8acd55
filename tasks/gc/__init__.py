"""Garbage collection: what nothing refers to is removed after a period of grace."""
