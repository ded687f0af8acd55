"""Runs from start to end, without Prefect.

pipeline:        `prepare` a run, open the work of one pass over it, `complete_run`
shard_selection: the shards that a resume may run
redistill:       a new version of a series
"""
