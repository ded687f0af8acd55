"""Presets with tiny sizes and counts, and their own values otherwise."""

from __future__ import annotations

from typing import Any

from distill_core.config.load import load_run, validate_run
from distill_core.config.schema import RunConfig
from tests.support.tiny import CLASSES, SIDE, WIDTH

REAL_PER_CLASS, IPC, EPOCHS = 6, 2, 4
LATE = 8  # images of a class, and steps, where late groups share them
NET = {"name": "convnet3", "width": WIDTH}
Tree = dict[str, Any]


def shrunk(preset: str, *overrides: str) -> RunConfig:
    """Return a preset with every size and count tiny, and all else its own."""
    tree = load_run(preset, overrides).model_dump(mode="json")
    sides = tree["data"]["side"]
    if tree["data"]["format"] == "classes":  # which has no images that a student could be tested on
        tree["data"] |= {"format": "patterns", "label_space": None, "keep": []}
    tree |= {"ipc": IPC, "precision": "float64", "threads": 1}
    tree["data"] |= {"num_classes": CLASSES, "side": SIDE, "load": "squish", "resize": None}
    tree["squeeze"]["model"] = NET
    tree["squeeze"]["pool"] = [{"model": NET} for _ in tree["squeeze"]["pool"]]
    _shrink_recover(tree["recover"], SIDE / sides)
    _shrink_relabel(tree["relabel"])
    _shrink_posttrain(tree["posttrain"])
    if tree["recover"]["late_groups"] > 1:
        tree["ipc"] = LATE
        tree["recover"] |= {"ipc_range": LATE, "batch_size": LATE, "steps": LATE}
    if tree["rounds"] is not None:  # three, so that a student goes on from another
        tree["ipc"] = 3
        tree["rounds"] |= {"starts": [1, 2], "student": NET, "epochs": 2}
        tree["recover"] |= {"ipc_range": 1, "late_groups": 1}
    return validate_run(tree, where=preset)


def _shrink_recover(recover: Tree, scale: float) -> None:
    recover |= {"batch_size": CLASSES, "ipc_range": IPC, "shard_classes": None}
    # Statistics are averaged by teacher: each is asked twice, or nothing is averaged.
    turns = 2 * len(recover["teachers"]) if recover["statistics_decay"] else 0
    recover["steps"] = min(recover["steps"], max(4, turns))
    for segment in recover["segments"]:
        segment["steps"] = recover["steps"] // len(recover["segments"])
        segment["side"] = segment["side"] and round(segment["side"] * scale)
    recover["roll"]["pixels"] = min(recover["roll"]["pixels"], SIDE // 4)
    if recover["perturb"] is not None:
        recover["perturb"]["steps"] = 2
    if recover["barycentre"] is not None:
        recover["barycentre"]["points"] = IPC
    if recover["originals"] is not None:
        layer = min(recover["originals"]["layer"], 2)  # convnet3 has three
        recover["originals"] |= {"images": IPC, "layer": layer, "grid": 1}
    if recover["mosaic"] is not None:
        recover["mosaic"]["images"] = REAL_PER_CLASS
        recover["mosaic"]["crops"] = min(recover["mosaic"]["crops"], 2)


def _shrink_relabel(relabel: Tree) -> None:
    relabel["views"] = 20 * EPOCHS if relabel["prune"] else EPOCHS  # some are left to choose from
    if relabel["scheme"] == "topk":
        relabel["topk"] = max(1, min(relabel["topk"] // 25, CLASSES - 1))
    else:
        relabel["scheme"] = "online"


def _shrink_posttrain(posttrain: Tree) -> None:
    small = {"batch_size": CLASSES, "micro_batch": None, "epochs": EPOCHS, "evaluate_every": 1}
    posttrain |= small | {"students": [NET], "seeds": [0]}
    posttrain["schedule"]["warmup_epochs"] = min(posttrain["schedule"]["warmup_epochs"], 1)
    posttrain["schedule"]["milestones"] = [1] if posttrain["schedule"]["milestones"] else []
    if posttrain["hard_epochs"] is not None:
        posttrain["hard_epochs"] = [1, 2]
    decay = posttrain["temperature_decay"]
    if decay is not None and decay["every"] is not None:
        decay["every"] = 1
