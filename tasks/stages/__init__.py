"""The stages of a run: one table, and one file per stage with its payload, jobs and worker.

- `table`: one row per stage; `stages_of` lists the stages of a run.
- `names`: `StageId`, the identity of a stage and of its manifests.
- `stage`: the type of a row.
- `plan`: `JobPlan`, the jobs of a stage with their keys; `manifests_of`.
- `inputs`: the index, shards, teachers and manifests that planning reads.
- `expected`: numbers of shards, estimated from the config alone.
- `worker`: `WorkerContext`, shared by all workers; `training`: shared by those that train;
  `finished`: shards that wait for a store that is away.
- `ingest`, `squeeze`, `statistics`, `select`, `recover`, `relabel`, `posttrain`, `validate`: one
  stage each.
"""
