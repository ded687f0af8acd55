"""Runs from start to end, with or without Prefect: prepare, resume, re-distil."""
