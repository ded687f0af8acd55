"""A process that starts, loads a teacher and takes one recover step; says when it was where.

python -m benchmarks.start_child FOLDER BATCH DEVICE, with both files of a teacher inside.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

MARKS: dict[str, tuple[float, float]] = {}


def mark(phase: str) -> None:
    """Note that a phase ends: the time of day, and the CPU time since the process began."""
    MARKS[phase] = (time.time(), time.process_time())


def main() -> None:
    """Start as a worker does."""
    mark("interpreter")
    import torch

    mark("import torch")
    from distill_core.config.load import load_run
    from distill_core.models.files import load_teacher
    from distill_core.recover.optimise import recover_batch
    from distill_core.recover.setup import RecoverySetup
    from distill_core.sharding import ImageId

    mark("import distill_core")
    torch.set_num_threads(1)
    folder, count, device = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    weights, spec = ((folder / f"teacher.{kind}").read_bytes() for kind in ("safetensors", "json"))
    teacher = load_teacher(weights, spec).to(device)
    mark("load the teacher")
    run = load_run("cda-cifar10-cpu", ["recover.steps=1"])
    labels = [n % teacher.spec.num_classes for n in range(count)]
    batch = tuple(ImageId(label, f"c{label}", n) for n, label in enumerate(labels))
    recover_batch(batch, RecoverySetup(run.recover, [teacher], seed=0))
    mark("first step")
    print(json.dumps(MARKS))


if __name__ == "__main__":
    main()
