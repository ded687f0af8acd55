"""The doctor: each finding has a level, and each problem a fix."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from distill_core.storage.store import Store
from flows.maintenance import accelerators, libraries, machine, storage
from flows.maintenance.findings import Check, Probe, run_probe, run_steps, worst


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


@pytest.mark.parametrize("check", [libraries.check_prefect, libraries.check_ray])
def test_a_library_that_cannot_be_imported_fails_with_its_own_message(check: Any) -> None:
    found = check(answering("TypeError: Body() got an unexpected keyword argument 'min_items'"))
    (failed,) = found if isinstance(found, list) else [found]
    assert failed.level == "FAIL"
    assert "min_items" in failed.detail
    assert failed.fix


def test_a_torch_that_cannot_be_imported_fails_with_its_own_message() -> None:
    found = libraries.check_torch({}, "OSError: libcudart.so.13: cannot open shared object file")
    assert (found.level, "libcudart" in found.detail) == ("FAIL", True)


def test_other_versions_of_ray_and_prefect_are_warned_about() -> None:
    def prefect(number: str) -> list[str]:
        facts = {"version": number, "address": None, "problem": None}
        return [check.level for check in libraries.check_prefect(answering(facts))]

    assert libraries.check_ray(answering({"version": "2.60.0"})).level == "OK"
    assert libraries.check_ray(answering({"version": "2.61.0"})).level == "WARN"
    assert prefect("3.8.8") == ["OK", "OK"]
    assert prefect("3.9.1") == ["WARN", "OK"]


def test_the_credentials_of_an_address_are_not_printed() -> None:
    failed = [str(check) for check in storage.check_store("s3://key:hu/sh@bucket/x")]
    assert len(failed) == 1
    assert failed[0].startswith("FAIL  store: ")
    assert "hu/sh" not in failed[0]


def torch_found(*, available: bool) -> dict[str, Any]:
    """Return what the torch probe prints."""
    devices = [{"name": "H200", "capability": [9, 0]}] if available else []
    return {"version": "2.15.0", "cuda": "13.0", "available": available, "devices": devices}


def test_a_driver_without_a_usable_device_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accelerators, "DRIVER", str(tmp_path))
    assert libraries.check_torch(torch_found(available=False)).level == "WARN"
    monkeypatch.setattr(accelerators, "DRIVER", str(tmp_path / "absent"))
    assert libraries.check_torch(torch_found(available=False)).level == "OK"
    assert "H200" in libraries.check_torch(torch_found(available=True)).detail


def test_a_probe_returns_json_or_the_last_line_of_its_error() -> None:
    assert run_probe("print('noise'); print('{\"version\": \"1\"}')") == {"version": "1"}
    assert run_probe("import no_such_module") == (
        "ModuleNotFoundError: No module named 'no_such_module'"
    )
    assert run_probe("import os; os.kill(os.getpid(), 11)") == (
        "ended with SIGSEGV (a fault in compiled code: see `distill doctor`)"
    )


def test_the_steps_before_a_crash_are_kept() -> None:
    code = "import os; print('{\"a\": 1}', flush=True); os.kill(os.getpid(), 6)"
    facts, error = run_steps(code)
    assert facts == {"a": 1}
    assert error is not None
    assert "SIGABRT" in error


def test_convolutions_that_crash_or_err_fail_and_excluded_ones_only_inform() -> None:
    def levels(found: dict[str, Any]) -> list[str]:
        return [check.level for check in machine.check_convolutions(found)]

    found = {"count": 151, "wrong": [], "excluded": 0}
    (crashed,) = machine.check_convolutions({"version": "2.15.0"}, "ended with SIGABRT")
    assert (crashed.level, "SIGABRT" in crashed.detail) == ("FAIL", True)
    assert levels(found | {"wrong": ["Shape(channels=8)"]}) == ["FAIL"]
    assert levels(found) == levels(found | {"excluded": -11}) == ["OK", "OK"]
    _, excluded = machine.check_convolutions(found | {"excluded": -11})
    assert "SIGSEGV" in excluded.detail


@pytest.mark.parametrize("limit", ["DEFAULT", "AVX2"])
def test_torch_and_the_convolutions_of_all_networks_run_here(
    limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    facts, error = run_steps(libraries.TORCH_PROBE, libraries.TORCH_ENVIRONMENT)
    checks = [libraries.check_torch(facts, error), *machine.check_convolutions(facts, error)]
    assert [check.level for check in checks] == ["OK"] * 3, checks


@pytest.mark.parametrize(
    ("instructions", "level"), [(None, "OK"), ({"amx_bf16"}, "OK"), (set(), "WARN")]
)
def test_a_cpu_without_bfloat16_is_warned_about(instructions: set[str] | None, level: str) -> None:
    check = machine.check_bfloat16(instructions)
    assert check.level == level
    assert level == "OK" or "precision=float32" in check.fix


def test_a_store_is_probed_and_left_clean(tmp_path: Path) -> None:
    checks = storage.check_store(str(tmp_path / "store"))
    assert [check.name for check in checks] == ["store", "clock", "disk"]
    assert checks[0].level == checks[1].level == "OK"
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_store_that_cannot_be_written_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    (check,) = storage.check_store(str(tmp_path / "file" / "store"))
    assert check.level == "FAIL"
    assert "file/store" in check.detail


def test_a_store_that_lets_a_second_create_through_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "probe", lambda store: False)
    store, *_ = storage.check_store(str(tmp_path))
    assert store.level == "FAIL"
    assert "--single-writer" in store.fix


def test_a_store_that_loses_races_fails_with_the_number_of_winners(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "race", lambda store: 9)
    store, *_ = storage.check_store(str(tmp_path))
    assert store.level == "FAIL"
    assert "9 of 16 writers" in store.detail


@pytest.mark.parametrize(
    ("ahead", "level", "word"),
    [
        (0, "OK", "within"),
        (20, "OK", "within"),
        (-20, "OK", "within"),
        (60, "WARN", "ahead of"),
        (-60, "WARN", "behind"),
        (1200, "FAIL", "ahead of"),
        (-1200, "FAIL", "behind"),
    ],
)
def test_the_clock_is_compared_with_that_of_the_store(
    tmp_path: Path, ahead: float, level: str, word: str
) -> None:
    def now() -> datetime:
        return datetime.now(UTC) + timedelta(seconds=ahead)

    check = storage.check_clock(Store(str(tmp_path)), now)
    assert (check.level, word in check.detail) == (level, True)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(("free", "level"), [(5e8, "FAIL"), (5e9, "WARN"), (5e10, "OK")])
def test_the_level_of_free_space_follows_the_number_of_bytes(
    tmp_path: Path, free: float, level: str
) -> None:
    assert machine.check_disk(tmp_path, int(free)).level == level


def test_folders_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    home = tmp_path / "home" / "not-made-yet"
    writable = {"HOME": str(home), "TMPDIR": str(tmp_path), "RAY_TMPDIR": str(tmp_path)}
    assert machine.check_folders(writable).level == "OK"
    assert list(tmp_path.iterdir()) == []
    # Nobody writes there, not even root.
    check = machine.check_folders(writable | {"PREFECT_HOME": "/proc/1/prefect"})
    assert check.level == "FAIL"
    assert "PREFECT_HOME (/proc/1/prefect)" in check.detail
    check = machine.check_folders(writable | {"HOME": "/sys/home"})
    assert "HOME (/sys/home), PREFECT_HOME (/sys/home/.prefect)" in check.detail


def test_the_worst_level_decides() -> None:
    fine, odd, bad = (Check("x", level, "y") for level in ("OK", "WARN", "FAIL"))
    assert worst([fine]) == "OK"
    assert worst([odd, fine]) == "WARN"
    assert worst([fine, bad, odd]) == "FAIL"


def test_a_line_holds_level_name_detail_and_fix() -> None:
    assert str(Check("disk", "WARN", "3 GB free", "Free some.")) == (
        "WARN  disk: 3 GB free. Free some."
    )
