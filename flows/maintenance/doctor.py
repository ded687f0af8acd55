"""Every check of this machine and of a store: OK, WARN or FAIL, and a fix for the latter two."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from flows.maintenance import libraries, machine
from flows.maintenance.findings import Check
from flows.runs.precision import bfloat16_instructions


def examine(store: str) -> tuple[Check, ...]:
    """Run every check, the slow imports in parallel.

    Args:
        store: folder or URL that a run would write to.
    """
    with ThreadPoolExecutor() as pool:
        slow = (
            libraries.check_torch,
            libraries.check_prefect,
            libraries.check_prefect_api,
            libraries.check_ray,
        )
        imports = [pool.submit(check) for check in slow]
        convolutions = pool.submit(machine.check_convolutions)
        quick = [
            libraries.check_python(),
            machine.check_bfloat16(bfloat16_instructions()),
            libraries.check_fastapi(),
            libraries.check_sqlalchemy(),
            machine.check_shared_memory(),
            *machine.check_store(store),
        ]
        torch, *others = [future.result() for future in imports]
        return (quick[0], torch, *convolutions.result(), *others, *quick[1:])
