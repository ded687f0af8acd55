"""Every check of this machine, a store and a cluster: OK, WARN or FAIL, and a fix."""

from __future__ import annotations

import os
from functools import partial

from flows.maintenance import accelerators, libraries, machine, services, storage
from flows.maintenance.findings import IMPORT_SECONDS, Check, begin, finished, run_steps
from flows.runs.precision import bfloat16_instructions

# A client of a store gives a dead one up after some 30 s, and then names the reason.
STORE_SECONDS = 45.0
ANSWER_SECONDS = 10.0


def examine(
    store: str, *, ray_address: str | None = None, submit: str | None = None
) -> tuple[Check, ...]:
    """Run every check; those that import libraries or wait for answers run at the same time.

    Args:
        store: folder or URL that a run would write to.
        ray_address: ``host:port`` of a cluster that a driver would join.
        submit: ``http://host:port`` of the Jobs API that a run would be submitted to.
    """
    slow = [
        ("torch", begin(_torch), IMPORT_SECONDS),
        ("prefect", begin(libraries.check_prefect), IMPORT_SECONDS),
        ("ray", begin(lambda: [libraries.check_ray()]), IMPORT_SECONDS),
        ("store", begin(partial(storage.check_store, store)), STORE_SECONDS),
    ]
    if ray_address is not None:
        check = partial(services.check_head, ray_address)
        slow.append(("ray address", begin(check), ANSWER_SECONDS))
    if submit is not None:
        check = partial(services.check_jobs_api, submit)
        slow.append(("jobs api", begin(check), ANSWER_SECONDS))
    quick = [
        libraries.check_python(),
        libraries.check_fastapi(),
        libraries.check_sqlalchemy(),
        machine.check_bfloat16(bfloat16_instructions()),
        accelerators.check_compiler(),
        machine.check_shared_memory(),
        machine.check_folders(os.environ),
    ]
    found = [check for name, future, limit in slow for check in finished(name, future, limit)]
    return (*quick, *found)


def _torch() -> list[Check]:
    """Run the checks that need torch, which is imported once for all of them."""
    driver = accelerators.driver_version()
    facts, error = run_steps(libraries.TORCH_PROBE, libraries.TORCH_ENVIRONMENT)
    devices = [(each["name"], tuple(each["capability"])) for each in facts.get("devices", ())]
    if driver is not None and not devices:
        devices = accelerators.capabilities()
    return [
        libraries.check_torch(facts, error),
        *accelerators.check_driver(facts, driver, devices),
        *machine.check_convolutions(facts, error),
    ]
