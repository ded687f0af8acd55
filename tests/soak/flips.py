"""Flip every byte of a finished store: ``python -m tests.soak.flips --every 1 --out FILE``."""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path

from tests.support.flipped import complete_store, flips


def main() -> None:
    """Flip bytes and write a table of what `distill verify` found, by kind of file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="one byte in so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--below", default="", help="only files whose path begins with this")
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    tried, found = Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        run = complete_store(Path(folder), "memory://flips")
        for flip in flips(run, options.below, every=options.every, seed=options.seed):
            kind = "/".join(part for part in flip.path.split("/")[:2] if part != run.name)
            tried[kind] += 1
            found[kind] += flip.found
            if not flip.found:
                print(f"not found: {flip.path} byte {flip.position}")
    lines = ["| files | flipped bytes | found |", "| --- | --- | --- |"]
    lines += [f"| {kind} | {tried[kind]:,} | {found[kind]:,} |" for kind in sorted(tried)]
    lines += [f"| all | {tried.total():,} | {found.total():,} |"]
    table = "\n".join(lines) + "\n"
    print(table)
    if options.out is not None:
        options.out.write_text(table)


if __name__ == "__main__":
    main()
