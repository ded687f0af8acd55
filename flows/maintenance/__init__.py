"""Maintenance of a store: verification and garbage collection."""
