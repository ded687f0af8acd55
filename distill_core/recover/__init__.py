"""Recover: images optimised through frozen teachers.

shard: the images of one class shard, all that a worker computes
optimise: one batch, or several in one launch
setup: config, teachers, seed and student of a recovery
batching: how many batches go through the teacher together
requirements: whether the networks of a run can do what its terms need; no torch
trace: loss curves and snapshots of a shard as a file; no torch
terms: the loss terms
goals, batch, pixels, step: the parts of the loop, for tests and benchmarks
cudagraph, statistics_average, weight_perturbation: used by the loop only
"""
