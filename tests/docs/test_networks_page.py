"""The page on networks lists every network and every setting of an import."""

from __future__ import annotations

from distill_core.config.training import NETWORKS, WITHOUT_BATCH_NORM, ImportConfig
from distill_core.storage.packages import FILES, SCHEME
from tests.support.repository import ROOT

PAGE = (ROOT / "docs/networks.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("|")]


def rows_with(name: str) -> list[str]:
    return [row for row in ROWS if f"`{name}`" in row.split("|")[1]]


def test_the_page_lists_every_network_once_with_its_batch_norm() -> None:
    for name in NETWORKS:
        (row,) = rows_with(name)
        assert row.split("|")[3].strip() == ("no" if name in WITHOUT_BATCH_NORM else "yes")


def test_the_page_explains_every_setting_of_an_import() -> None:
    for name in ImportConfig.model_fields:
        assert any(row.startswith(f"| `{name}") for row in ROWS), name


def test_the_page_names_the_weights_of_packages() -> None:
    assert all(f"{SCHEME}{name}" in PAGE or f"`-{name[-5:]}`" in PAGE for name in FILES)
