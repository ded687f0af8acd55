"""Networks that cannot do what a run asks of them are refused by their names, before any work."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from distill_core.config.schema import RunConfig
from distill_core.errors import ConfigError
from distill_core.recover.requirements import check_networks
from tests.support.teacher_training import TREE, run

STATISTICS = TREE["recover"] | {"terms": {"cross_entropy": 1.0, "bn_statistics": 0.1}}


def with_teacher(name: str, *, side: int = 224, **changes: Any) -> RunConfig:
    return run(
        data=TREE["data"] | {"side": side},
        squeeze={"model": {"name": name}, "training": None, "checkpoint": "teacher.pth"},
        **changes,
    )


@pytest.mark.parametrize("name", ["vit_b_16", "swin_t", "convnext_tiny", "alexnet"])
def test_a_term_of_batch_norms_needs_a_teacher_that_has_some(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name} has no batch norm layer, bn_statistics needs"):
        check_networks(with_teacher(name, recover=STATISTICS))
    check_networks(with_teacher(name))
    check_networks(with_teacher("resnet34", recover=STATISTICS))


def test_a_term_of_batch_norms_finds_those_of_timm() -> None:
    pytest.importorskip("timm")
    with pytest.raises(ConfigError, match="timm-deit_tiny_patch16_224 has no batch norm layer"):
        check_networks(with_teacher("timm:deit_tiny_patch16_224", recover=STATISTICS))
    check_networks(with_teacher("timm:regnety_002", recover=STATISTICS))


def test_a_network_of_one_size_is_refused_at_another() -> None:
    with pytest.raises(ConfigError, match=r"squeeze\.model: vit_b_16 accepts images of 224 x 224"):
        check_networks(with_teacher("vit_b_16", side=64))
    students = TREE["posttrain"] | {"students": ({"name": "vit_b_16"},)}
    with pytest.raises(ConfigError, match=r"posttrain\.students\[0\]: vit_b_16 accepts"):
        check_networks(run(posttrain=students))


def test_a_network_of_timm_that_does_not_exist_is_refused() -> None:
    pytest.importorskip("timm")
    with pytest.raises(ConfigError, match="Did you mean"):
        check_networks(with_teacher("timm:resnet_18"))


def test_no_torch_is_imported_for_networks_of_our_own() -> None:
    code = (
        "import sys; from distill_core.config.load import load_run;"
        "from distill_core.recover.requirements import check_networks;"
        "check_networks(load_run('digits-demo')); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
