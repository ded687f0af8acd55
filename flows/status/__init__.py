"""Status of runs: complete shards, drivers at work, rates.

status: `run_status`, `every_run` and `run_activity`, read from the store
tables: the same as tables and as JSON
"""
