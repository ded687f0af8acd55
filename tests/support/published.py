"""The methods and datasets that have presets."""

from __future__ import annotations

DATASETS = ("cifar10", "cifar100", "tiny", "in1k", "in21kp", "in21k")
METHODS = {  # the datasets for which values are published, or that a baseline is asked for
    "sre2l": DATASETS,
    "cda": DATASETS,
    "random-real": DATASETS,
    "herding": ("cifar10", "cifar100", "tiny", "in1k"),
    "k-center": ("cifar10", "cifar100", "tiny", "in1k"),
    "rded": ("cifar10", "cifar100", "tiny", "in1k"),
    "dwa": ("cifar10", "cifar100", "tiny", "in1k"),
    "sre2lpp": ("cifar10", "cifar100", "tiny", "in1k"),
    "gvbsm": ("cifar10", "cifar100", "tiny", "in1k"),
    "edc": ("cifar10", "cifar100", "tiny", "in1k"),
    "edc-crops": ("cifar10",),
    "wmdd": ("tiny", "in1k"),
    "cim": ("cifar10", "cifar100", "tiny", "in1k"),
    "cudd": ("cifar10", "cifar100", "tiny", "in1k", "in21kp"),
    "cvdd": ("cifar10", "cifar100", "tiny", "in1k"),
    "fadrm": ("cifar10", "cifar100", "tiny", "in1k"),
    "fadrm-plus": ("cifar100", "tiny", "in1k"),
    "delt": ("cifar10", "tiny", "in1k"),
    "lpld": ("tiny", "in1k", "in21kp"),
    "lpqld": ("in1k", "in21kp"),
}
PUBLISHED = [f"{method}-{data}" for method, datasets in METHODS.items() for data in datasets]
