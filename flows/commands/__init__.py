"""The commands of `distill`. Nothing outside this folder and `flows.cli` imports them.

options:     arguments and options that several commands share; groups: of several of them
init:        init; ingest: ingest
run:         run, resume, redistill, demo
inspect:     status, plan, show, report
maintenance: verify, doctor, gc
trigger:     trigger, serve
schedule:    schedule add, list, pause, resume, remove
summary:     the last lines and the JSON of a run; demos: those of demo
failures:    wrong options and bugs, in one line

Imports inside functions: `distill --help` must answer at once, and a run that is complete must not
wait for Prefect or Ray. So a command imports at the top only what its signature needs, and all else
in its body. This holds for every file of this folder and is not repeated there.
"""
