"""A driver to be killed: runs stages of a registered run on Ray, as the flow does.

python -m tests.support.drive STORE RUN WORKERS STAGE...
"""

from __future__ import annotations

import sys

from distill_core.storage.store import Store
from tasks.run import open_run
from tests.support.pipeline import execute

if __name__ == "__main__":
    store, name, workers, *stages = sys.argv[1:]
    execute(open_run(Store(store), name), *stages, workers=int(workers), local=False)
