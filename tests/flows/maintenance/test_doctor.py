"""The doctor: each finding has a level, and each problem a fix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows.maintenance import libraries, machine
from flows.maintenance.findings import Check, Probe, run_probe, worst


def answering(found: dict[str, Any] | str) -> Probe:
    """Return a probe that does not start a process."""
    return lambda code: found


@pytest.mark.parametrize(
    ("version", "level"), [("3.10.4", "FAIL"), ("3.11.7", "OK"), ("3.13.0", "OK"), ("3.14", "FAIL")]
)
def test_the_level_of_a_python_version_follows_the_supported_range(
    version: str, level: str
) -> None:
    assert libraries.check_python(version).level == level


@pytest.mark.parametrize(("version", "level"), [("0.150.0", "OK"), ("0.165.0", "FAIL")])
def test_a_fastapi_that_breaks_the_server_is_found(version: str, level: str) -> None:
    check = libraries.check_fastapi(version)
    assert check.level == level
    assert level == "OK" or "pip install 'fastapi" in check.fix


@pytest.mark.parametrize(("version", "level"), [("2.0.58", "OK"), ("2.1.9", "WARN")])
def test_a_sqlalchemy_that_stops_schedules_is_warned_about(version: str, level: str) -> None:
    assert libraries.check_sqlalchemy(version).level == level


@pytest.mark.parametrize(
    "check", [libraries.check_torch, libraries.check_prefect, libraries.check_ray]
)
def test_a_library_that_cannot_be_imported_fails_with_its_own_message(check: Any) -> None:
    found = check(answering("TypeError: Body() got an unexpected keyword argument 'min_items'"))
    assert found.level == "FAIL"
    assert "min_items" in found.detail
    assert found.fix


def test_other_versions_of_ray_and_prefect_are_warned_about() -> None:
    assert libraries.check_ray(answering({"version": "2.60.0"})).level == "OK"
    assert libraries.check_ray(answering({"version": "2.61.0"})).level == "WARN"
    assert libraries.check_prefect(answering({"version": "3.8.8"})).level == "OK"
    assert libraries.check_prefect(answering({"version": "3.9.1"})).level == "WARN"


def test_the_credentials_of_an_address_are_not_printed() -> None:
    failed = [str(check) for check in machine.check_store("s3://key:hu/sh@bucket/x")]
    assert len(failed) == 1
    assert failed[0].startswith("FAIL  store: ")
    assert "hu/sh" not in failed[0]


def torch_found(*, available: bool) -> dict[str, Any]:
    """Return what the torch probe prints."""
    devices = ["H200"] if available else []
    return {"version": "2.15.0", "cuda": "13.0", "available": available, "devices": devices}


def test_a_driver_without_a_usable_device_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "_has_nvidia", lambda: True)
    assert libraries.check_torch(answering(torch_found(available=False))).level == "WARN"
    monkeypatch.setattr(libraries, "_has_nvidia", lambda: False)
    assert libraries.check_torch(answering(torch_found(available=False))).level == "OK"
    assert "H200" in libraries.check_torch(answering(torch_found(available=True))).detail


def test_a_probe_returns_json_or_the_last_line_of_its_error() -> None:
    assert run_probe("print('noise'); print('{\"version\": \"1\"}')") == {"version": "1"}
    assert run_probe("import no_such_module") == (
        "ModuleNotFoundError: No module named 'no_such_module'"
    )
    assert run_probe("import os; os.kill(os.getpid(), 11)") == (
        "ended with SIGSEGV (a fault in compiled code: see `distill doctor`)"
    )


def test_convolutions_that_crash_or_err_fail_and_excluded_ones_only_inform() -> None:
    def levels(found: dict[str, Any] | str) -> list[str]:
        return [check.level for check in machine.check_convolutions(answering(found))]

    found = {"count": 151, "wrong": [], "excluded": 0}
    assert levels("ended with SIGABRT") == ["FAIL"]
    assert levels(found | {"wrong": ["Shape(channels=8)"]}) == ["FAIL"]
    assert levels(found) == levels(found | {"excluded": -11}) == ["OK", "OK"]
    _, excluded = machine.check_convolutions(answering(found | {"excluded": -11}))
    assert "SIGSEGV" in excluded.detail


@pytest.mark.parametrize("limit", ["DEFAULT", "AVX2"])
def test_the_convolutions_of_all_networks_run_here(
    limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    checks = machine.check_convolutions()
    assert [check.level for check in checks] == ["OK", "OK"], checks


@pytest.mark.parametrize(
    ("instructions", "level"), [(None, "OK"), ({"amx_bf16"}, "OK"), (set(), "WARN")]
)
def test_a_cpu_without_bfloat16_is_warned_about(instructions: set[str] | None, level: str) -> None:
    check = machine.check_bfloat16(instructions)
    assert check.level == level
    assert level == "OK" or "precision=float32" in check.fix


def test_a_store_is_probed_and_left_clean(tmp_path: Path) -> None:
    store, disk = machine.check_store(str(tmp_path / "store"))
    assert store.level == "OK"
    assert disk.name == "disk"
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_store_that_cannot_be_written_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    (check,) = machine.check_store(str(tmp_path / "file" / "store"))
    assert check.level == "FAIL"
    assert "file/store" in check.detail


def test_a_store_that_lets_a_second_create_through_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "probe", lambda store: False)
    store, _ = machine.check_store(str(tmp_path))
    assert store.level == "FAIL"
    assert "--single-writer" in store.fix


@pytest.mark.parametrize(("free", "level"), [(5e8, "FAIL"), (5e9, "WARN"), (5e10, "OK")])
def test_the_level_of_free_space_follows_the_number_of_bytes(
    tmp_path: Path, free: float, level: str
) -> None:
    assert machine.check_disk(tmp_path, int(free)).level == level


def test_the_worst_level_decides() -> None:
    fine, odd, bad = (Check("x", level, "y") for level in ("OK", "WARN", "FAIL"))
    assert worst([fine]) == "OK"
    assert worst([odd, fine]) == "WARN"
    assert worst([fine, bad, odd]) == "FAIL"


def test_a_line_holds_level_name_detail_and_fix() -> None:
    assert str(Check("disk", "WARN", "3 GB free", "Free some.")) == (
        "WARN  disk: 3 GB free. Free some."
    )
