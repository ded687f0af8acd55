"""Garbage collection: removes what no run or release refers to, after a grace period.

- `collect`: the collection itself, in two passes.
- `unreferenced`: finds the garbage of a store; `KINDS` describes it for people.
- `references`: the shards and datasets that runs and releases need.
"""
