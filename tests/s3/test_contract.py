"""The storage contract in a bucket.

The tests are those of tests/distill_core/storage, which run there on disk and in memory. This
module imports test modules on purpose: a second copy of the contract could differ from the first.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType

from tests.distill_core.storage import test_checkpoints, test_manifest, test_markers, test_store

CONTRACT = (test_store, test_markers, test_checkpoints, test_manifest)


def contract(module: ModuleType) -> dict[str, Callable[..., None]]:
    """Return the tests of a module that run wherever a store can be, by name."""
    return {
        name: test
        for name, test in vars(module).items()
        if name.startswith("test_")
        and {"store", "shard_store"} & set(inspect.signature(test).parameters)
    }


for _module in CONTRACT:
    _found = contract(_module)
    assert not globals().keys() & _found.keys(), "two tests of one name: one would hide the other"
    globals().update(_found)
del _found


def test_the_contract_covers_every_module_and_has_more_than_thirty_tests() -> None:
    assert all(len(contract(module)) >= 2 for module in CONTRACT)
    assert sum(len(contract(module)) for module in CONTRACT) > 30
