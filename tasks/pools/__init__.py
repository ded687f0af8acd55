"""Pools of workers: in this process, in children, or on Ray, under one dispatcher.

- `provider`: starts the pool of a stage; `PoolProvider` is the entry point.
- `dispatch`: runs jobs on a pool until each is done or given up.
- `failures`: counts failures; `Failure` and `DispatchResult` are what a dispatch returns.
- `events`: the interface between the dispatcher and a pool.
- `local`, `process`, `ray`, `ray_train`: the pools: in this process, in spawned children, as
  actors, and as one gang of processes.
- `host`, `child`: what runs around a worker in every process, and in a spawned child.
- `ray_cluster`, `ray_capacity`, `session_folder`: connection to Ray, its size, its files.
- `device`: checks the device before workers start.
- `signals`, `signal_watch`: end a process within a bounded time on SIGTERM or Ctrl-C.
- `supervision`, `reaper`: end what a driver started, whatever ends the driver.
"""
