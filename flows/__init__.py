"""Orchestration: the command line, Prefect flows, runs and reports. No tensors and no actors.

Imports point down this list, without circles:

cli, commands: the command line
orchestration: everything that imports Prefect
runs:          runs from start to end
reports:       accuracy tables, HTML report, differences of versions
status:        progress of runs, from the store
maintenance:   verification, garbage collection, checks of the machine
estimate:      work, bytes and cost of a run before it starts
progress:      progress of a run in flight
terminal, units: output, numbers as text
"""
