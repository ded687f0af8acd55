"""Execution: runs, stages, worker pools and the dispatcher. It does not import Prefect.

- `run`, `series`: registered runs, and the versions of a dataset.
- `policy`: the choices for the teacher of a new version.
- `execution`: settings of how and where jobs run; they change no result.
- `jobs`: the messages between the driver and its workers.
- `observer`: the protocol of those who follow a run.
- `calibration`: measures the speed of a worker.
- `stages`, `runs`, `pools`, `submission`, `gc`: packages, each with its own list.
"""
