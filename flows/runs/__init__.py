"""Runs from start to end, without Prefect.

preflight:       cheap checks of a run before it starts, also for --dry-run; checks: by subject
pipeline:        `prepare` a run, open the work of one pass over it, `complete_run`
shard_selection: the shards that a resume may run
redistill:       a new version of a series
request:         what a flow or a job of a cluster is to do, and doing it
submit:          a request as a job of a cluster
"""
