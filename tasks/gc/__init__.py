"""Garbage collection: removes what no run or release refers to, after a grace period.

- `collect`: the collection itself, in two passes; `clock`: the time of the store.
- `grammar`: the names of objects that may be removed at all.
- `unreferenced`: finds the garbage of a store; `KINDS` describes it for people.
- `kind_files`: finds it among the files of one kind of stage; `marker_check`: checks its markers.
- `references`: the shards and datasets that runs and releases need.
- `run_references`: those of one run; `recorded_plan`: the run's plan.
"""
