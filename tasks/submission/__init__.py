"""Runs as jobs of a Ray cluster, submitted over HTTP from a machine that is not part of it.

jobs_api:   Ray's Jobs API, with limited waits and errors in one line
submission: submit a job once, or find the one that is running
follow:     its log, its end and its cancellation
"""
