"""The part of a machine that one of several workers may use, in control groups of both versions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from distill_core import machine_share
from distill_core.errors import ConfigError

GIB = 2**30
MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.fixture(autouse=True)
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder in place of the control groups, for a process of no pool."""
    for variable in (machine_share.WORKERS, machine_share.GPU_WORKERS):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(machine_share, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr(machine_share, "MEMBERSHIP", tmp_path / "membership")
    write(tmp_path / "membership", "0::/")
    return tmp_path / "groups"


def write(file: Path, text: str) -> None:
    """Write a file of the kernel."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{text}\n")


def test_workers_share_the_memory_the_gpu_and_the_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = machine_share.memory_share(), machine_share.cpu_share()
    assert alone == (MACHINE, len(os.sched_getaffinity(0)))
    monkeypatch.setattr(os, "environ", dict(os.environ))
    machine_share.share_machine(8, gpu_workers=2)
    assert machine_share.memory_share() == MACHINE // 8
    assert machine_share.gpu_memory_share(80 * GIB) == 40 * GIB
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(36)))
    assert machine_share.cpu_share() == 4
    machine_share.share_machine(64)
    assert machine_share.cpu_share() == 1


@pytest.mark.parametrize(
    ("membership", "file", "limits"),
    [
        ("0::/", "memory.max", {"": GIB}),
        ("0::/pod/ray", "memory.max", {"pod": GIB, "pod/ray": 2 * GIB}),
        ("0::/pod/ray", "memory.max", {"pod": 2 * GIB, "pod/ray": GIB}),
        ("0::/not/visible/here", "memory.max", {"": GIB}),
        ("3:cpu:/x\n2:memory:/pod", "memory.limit_in_bytes", {"memory/pod": GIB}),
        ("2:memory:/docker/0123", "memory.limit_in_bytes", {"memory": GIB}),
    ],
)
def test_the_smallest_limit_of_the_control_groups_counts(
    groups: Path, membership: str, file: str, limits: dict[str, int]
) -> None:
    write(groups.parent / "membership", membership)
    for folder, size in limits.items():
        write(groups / folder / file, str(size))
    assert machine_share.memory_share() == GIB


def test_an_unlimited_group_and_one_of_another_controller_do_not_count(groups: Path) -> None:
    write(groups.parent / "membership", "2:cpu:/other\n0::/pod")
    write(groups / "pod" / "memory.max", "max")
    write(groups / "pod" / "cpu.max", "max 100000")
    write(groups / "cpu" / "other" / "memory.limit_in_bytes", "1")
    write(groups / "cpu" / "other" / "cpu.cfs_quota_us", "-1")
    write(groups / "cpu" / "other" / "cpu.cfs_period_us", "100000")
    assert machine_share.memory_share() == MACHINE
    assert machine_share.usable_cpus() == len(os.sched_getaffinity(0))


def test_a_quota_of_cpus_counts(groups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    write(groups / "cpu.max", "1250000 100000")
    assert machine_share.usable_cpus() == 12
    write(groups.parent / "membership", "7:cpuset:/\n4:cpu,cpuacct:/pod\n0::/")
    write(groups / "cpu" / "pod" / "cpu.cfs_quota_us", "50000")
    write(groups / "cpu" / "pod" / "cpu.cfs_period_us", "100000")
    assert machine_share.usable_cpus() == 1


@pytest.mark.parametrize("text", ["0", "many", "-1", "1.5"])
def test_a_number_of_workers_that_is_none_is_refused(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(machine_share.WORKERS, text)
    with pytest.raises(ConfigError, match=r"DISTILL_WORKERS_PER_HOST: .*expected 1 or more"):
        machine_share.memory_share()
