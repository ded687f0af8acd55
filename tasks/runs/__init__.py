"""The stages of a run: running and finalising them, their status, and the records of drivers.

- `run_stage`: runs what a stage lacks, then writes its manifests.
- `finalise`: writes manifests, and stores or raises the failures of a stage.
- `stage_status`: what is complete, missing and failed, from markers and manifests.
- `drivers`: reads and writes the records of the drivers of a run.
- `heartbeat`: keeps the record of this driver up to date; `peers`: reads those of the others.
"""
