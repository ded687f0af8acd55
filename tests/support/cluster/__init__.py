"""A simulated cluster: nodes, faults, a store and jobs in virtual time, behind a real dispatcher.

`model` describes nodes, jobs and faults; `world` plays them as a `Pool`, and `records` keeps what
happens; `bounds` computes the best time that the nodes allow; `scenarios` draws random ones and
holds those with names; `play` runs the stages of a scenario and measures time, waste and what was
done twice.
"""
