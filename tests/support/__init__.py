"""Helpers that tests share: stand-ins, small datasets and runs, servers and fixtures."""
