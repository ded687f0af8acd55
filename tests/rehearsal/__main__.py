"""Rehearse a run with all 21,841 classes, check it, and write its results.

python -m tests.rehearsal [--store FOLDER] [--out FILE] [KEY=VALUE]...
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.rehearsal.rehearse import rehearse, write

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Rehearse a run with all 21,841 classes.")
    parser.add_argument("--store", type=Path, default=Path("out/rehearsal"), help="an empty folder")
    parser.add_argument("--out", type=Path, help="where to write the result, as Markdown")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    said = parser.parse_args()
    facts = rehearse(said.store, said.overrides)
    write(facts, said.out)
