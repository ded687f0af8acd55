"""The warning about bfloat16 on a CPU without instructions for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill_core.config.fields import Precision
from distill_core.config.load import load_run
from flows import terminal
from flows.runs import precision
from flows.runs.precision import bfloat16_instructions, slow_precision, warn_if_slow

X86 = "processor\t: 0\nmodel name\t: CPU\nflags\t\t: fpu sse2 avx2 {}\nbugs\t\t: none\n"


def info(folder: Path, text: str) -> Path:
    """Return a file that lists the flags of a CPU."""
    path = folder / "cpuinfo"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "instructions"),
    [
        (X86.format(""), set()),
        (X86.format("avx512f avx512_vnni"), set()),
        (X86.format("avx512f avx512_bf16 amx_bf16"), {"avx512_bf16", "amx_bf16"}),
        ("processor\t: 0\nFeatures\t: fp asimd bf16 i8mm\n", {"bf16"}),
    ],
)
def test_instructions_are_read_from_the_flags(
    tmp_path: Path, text: str, instructions: set[str]
) -> None:
    assert bfloat16_instructions(info(tmp_path, text), limit="") == instructions


@pytest.mark.parametrize("text", ["", "processor\t: 0\n"])
def test_instructions_of_a_system_that_does_not_list_them_are_unknown(
    tmp_path: Path, text: str
) -> None:
    assert bfloat16_instructions(info(tmp_path, text), limit="") is None
    assert bfloat16_instructions(tmp_path / "absent", limit="") is None


@pytest.mark.parametrize(
    ("limit", "allowed"),
    [
        ("AVX2", False),
        ("avx512_core_vnni", False),
        ("AVX512_CORE_BF16", True),
        ("AVX512_CORE_AMX", True),
        ("DEFAULT", True),
    ],
)
def test_the_limit_of_onednn_counts(
    tmp_path: Path, limit: str, allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = info(tmp_path, X86.format("avx512_bf16"))
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert bool(bfloat16_instructions(path)) is allowed


@pytest.mark.parametrize(
    ("chosen", "device", "instructions", "warned"),
    [
        ("bfloat16", "cpu", set(), True),
        ("bfloat16", "cpu", {"amx_bf16"}, False),
        ("bfloat16", "cpu", None, False),
        ("bfloat16", "cuda", set(), False),
        ("float32", "cpu", set(), False),
    ],
)
def test_only_bfloat16_on_a_cpu_without_instructions_is_warned_about(
    chosen: Precision, device: str, instructions: set[str] | None, warned: bool
) -> None:
    assert (slow_precision(chosen, device, instructions) is not None) is warned


def test_a_run_is_warned_about_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(precision, "bfloat16_instructions", frozenset)
    terminal.warn.cache_clear()
    config = load_run("digits-demo", ["precision=bfloat16"])
    for _ in range(2):
        warn_if_slow(config, "cpu")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("distill: warning: precision=bfloat16: this CPU has no")
