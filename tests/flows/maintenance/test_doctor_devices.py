"""The doctor's checks of NVIDIA devices and of a compiler, on machines described by their facts."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.maintenance import accelerators

KERNELS = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]  # of the locked wheel
CUDA_13 = {"cuda": "13.2", "kernels": KERNELS}
VERSIONS = {
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Thu Jan 23 UTC 2025": "570.86.15",
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release": "580.65.06",
    "NVRM version: something else": None,
}


@pytest.mark.parametrize(("text", "version"), VERSIONS.items())
def test_the_version_of_the_driver_is_read(text: str, version: str | None, tmp_path: Path) -> None:
    (tmp_path / "version").write_text(text)
    assert accelerators.driver_version(str(tmp_path / "version")) == version
    assert accelerators.driver_version(str(tmp_path / "absent")) is None


@pytest.mark.parametrize(
    ("cuda", "driver", "level"),
    [
        ("13.2", "580.65.06", "OK"),
        ("13.2", "570.86.15", "FAIL"),
        ("13.0", "575.51.03", "FAIL"),
        ("12.6", "570.86.15", "OK"),
        ("12.6", "470.82.01", "FAIL"),
        ("14.0", "570.86.15", "FAIL"),
    ],
)
def test_the_driver_has_to_serve_the_cuda_of_torch(cuda: str, driver: str, level: str) -> None:
    (check,) = accelerators.check_driver({"cuda": cuda, "kernels": KERNELS}, driver, [])
    assert check.level == level
    assert level == "OK" or "Install driver R5" in check.fix


def test_without_a_driver_or_cuda_nothing_is_checked() -> None:
    assert accelerators.check_driver(CUDA_13, None, []) == []
    assert accelerators.check_driver({"cuda": None}, "580.65.06", []) == []


@pytest.mark.parametrize(
    ("name", "capability", "level"),
    [
        ("Tesla V100", (7, 0), "FAIL"),
        ("T4", (7, 5), "OK"),
        ("L4", (8, 9), "OK"),
        ("H200", (9, 0), "OK"),
        ("GB300", (10, 3), "OK"),
        ("another", (11, 0), "FAIL"),
    ],
)
def test_a_device_without_kernels_in_the_wheel_is_named(
    name: str, capability: tuple[int, int], level: str
) -> None:
    fine = ("H100", (9, 0))
    (check,) = accelerators.check_driver(CUDA_13, "580.65.06", [fine, (name, capability)])
    assert check.level == level
    assert (name in check.detail) is (level == "FAIL")


def test_code_that_the_driver_compiles_serves_every_newer_device() -> None:
    assert accelerators.has_kernels((12, 1), ["sm_90a", "compute_90"])
    assert not accelerators.has_kernels((8, 9), ["sm_90a", "compute_90"])


def test_the_devices_of_nvidia_smi_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\nprintf 'Tesla V100-SXM2, 7.0\\nNVIDIA H200, 9.0\\nGT, [N/A]\\n'\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(accelerators, "SMI", (str(program), *accelerators.SMI[1:]))
    assert accelerators.capabilities() == [("Tesla V100-SXM2", (7, 0)), ("NVIDIA H200", (9, 0))]
    monkeypatch.setattr(accelerators, "SMI", (str(tmp_path / "absent"),))
    assert accelerators.capabilities() == []


@pytest.mark.parametrize(
    ("programs", "environment", "missing"),
    [
        ({"gcc", "g++"}, {}, ""),
        ({"clang", "g++"}, {}, ""),
        ({"gcc", "g++"}, {"CC": "icx"}, ""),
        ({"icx", "icpx"}, {"CC": "icx", "CXX": "icpx"}, ""),
        ({"gcc"}, {}, "a C++ compiler"),
        (set(), {}, "a C compiler and a C++ compiler"),
    ],
)
def test_a_missing_compiler_is_a_warning(
    tmp_path: Path, programs: set[str], environment: dict[str, str], missing: str
) -> None:
    (tmp_path / "Python.h").touch()
    check = accelerators.check_compiler(
        environment, lambda name: name if name in programs else None, str(tmp_path)
    )
    assert check.level == ("WARN" if missing else "OK")
    assert check.detail.startswith(missing)


def test_missing_headers_of_python_are_a_warning(tmp_path: Path) -> None:
    check = accelerators.check_compiler({}, lambda name: name, str(tmp_path))
    assert (check.level, "headers" in check.detail) == ("WARN", True)
