"""Estimates before a run: workload, stored bytes, cost."""
