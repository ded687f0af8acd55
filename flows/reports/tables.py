"""The accuracy table: the teacher, and students by training set with their spread over seeds.

All functions are pure, and take the summaries in the markers. The terminal, Prefect and the report
show the same cells.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from distill_core.evaluation.accuracy import Hits
from flows import units

Summary = Mapping[str, Any]

# Description of each training set, in the order of the table.
SETS: Mapping[str, str] = {
    "distilled": "distilled images, soft labels",
    "random_real": "random real images, soft labels",
    "hard_labels": "distilled images, hard labels",
}
HEADER = (
    "network",
    "trained on",
    "last",
    "EMA",
    "best-on-test",
    "gain over random real",
    "seeds",
)
NOTE = (
    "Top-1 accuracy on the real test split in percent, mean ± standard deviation over seeds. "
    "`last` is the last epoch; `best-on-test` is the epoch with the best test accuracy, which is "
    "optimistic."
)
LISTED = 20  # at most so many names of missing shards


def final_results(students: Mapping[str, Summary], blocks: Iterable[Summary]) -> list[Summary]:
    """Return the result of every student, its last and EMA accuracy on the whole test split.

    A student without all its blocks keeps the result of its training.

    Args:
        students: results of training, by the key of the weights.
        blocks: counts of the stage `validate` on every block; none if training used all of it.
    """
    by_student: dict[str, list[Summary]] = {}
    for block in blocks:
        by_student.setdefault(block["weights"], []).append(block)
    return [{**result, **_whole_split(by_student.get(key, []))} for key, result in students.items()]


def _whole_split(blocks: Sequence[Summary]) -> Summary:
    """Return the accuracies over all blocks of a student, if they cover the test split."""
    sums = {which: sum((Hits(**b[which]) for b in blocks), Hits()) for which in ("last", "ema")}
    if not blocks or sums["last"].images != blocks[0]["of"]:
        return {}
    accuracies = {which: asdict(hits.accuracy) for which, hits in sums.items()}
    return {**accuracies, "validated": sums["last"].images}


def note(results: Sequence[Summary]) -> str:
    """Return an explanation of the columns, with the part of the test split that was used."""
    partly = [result["judged_on"] for result in results if "judged_on" in result]
    if not partly:
        return NOTE
    final = all("validated" in result for result in results)
    subject = "`best-on-test` is" if final else "Accuracies of students not yet validated are"
    images, whole = partly[0]["images"], partly[0]["of"]
    return f"{NOTE} {subject} measured on {images:,} evenly spaced images of {whole:,} test images."


@dataclass(frozen=True)
class Score:
    """Top-1 accuracy over seeds, in percent."""

    mean: float
    spread: float | None  # sample standard deviation; None for a single seed

    def __str__(self) -> str:
        """Return e.g. ``41.3 ± 0.6``."""
        return f"{self.mean:.1f}" + ("" if self.spread is None else f" ± {self.spread:.1f}")


@dataclass(frozen=True)
class AccuracyRow:
    """One student architecture on one set."""

    student: str
    images_of: str
    last: Score
    ema: Score
    best: Score
    gain: float | None  # percentage points of `last` over the same student on random real images
    seeds: int
    missing: tuple[str, ...] = ()  # shards that the set lacks
    distinct: tuple[int, int] | None = None  # different real images, of all; None: none repeats

    @property
    def trained_on(self) -> str:
        """Return the description of the set, with what it lacks or repeats."""
        lacks = f"; without {units.shards(len(self.missing))}" if self.missing else ""
        repeats = f"; {self.distinct[0]:,} of {self.distinct[1]:,} differ" if self.distinct else ""
        return SETS.get(self.images_of, self.images_of) + repeats + lacks


def score(values: Iterable[float]) -> Score:
    """Return mean and sample standard deviation of at least one value."""
    sample = list(values)
    return Score(statistics.fmean(sample), statistics.stdev(sample) if len(sample) > 1 else None)


def accuracy_rows(results: Sequence[Summary]) -> tuple[AccuracyRow, ...]:
    """Group post-train results by student and set, students in their order of appearance."""
    groups: dict[tuple[str, str], list[Summary]] = {}
    for result in results:
        groups.setdefault((result["student"], result["set"]), []).append(result)
    last = {group: score(_top1(part, "last")) for group, part in groups.items()}
    order = {name: rank for rank, name in enumerate(dict.fromkeys(r["student"] for r in results))}
    ranks = {name: rank for rank, name in enumerate(SETS)}
    return tuple(
        AccuracyRow(
            student=student,
            images_of=images_of,
            last=last[student, images_of],
            ema=score(_top1(groups[student, images_of], "ema")),
            best=score(_top1(groups[student, images_of], "best")),
            gain=_gain(last, student, images_of),
            seeds=len(groups[student, images_of]),
            missing=_missing(groups[student, images_of]),
            distinct=_distinct(groups[student, images_of]),
        )
        for student, images_of in sorted(
            groups, key=lambda group: (order[group[0]], ranks.get(group[1], len(ranks)))
        )
    )


def accuracy_cells(teacher: Summary | None, rows: Sequence[AccuracyRow]) -> list[tuple[str, ...]]:
    """Return the table's body as text, the teacher first."""
    body = [_student_cells(row) for row in rows]
    if teacher is None:
        return body
    accuracy = teacher.get("accuracy")
    last = "-" if accuracy is None else f"{accuracy:.1f}"
    title = f"{teacher.get('model', 'teacher')} (teacher)"
    return [(title, "all real images", last, "-", "-", "-", "1"), *body]


def terminal_table(cells: Sequence[Sequence[str]], *, title: str = "") -> Table:
    """Return the cells as a rich table."""
    table = Table(title=title or None, title_justify="left")
    for column, name in enumerate(HEADER):
        table.add_column(name, justify="left" if column < 2 else "right")
    for row in cells:
        table.add_row(*row)
    return table


def markdown_table(header: Sequence[str], cells: Iterable[Sequence[str]]) -> str:
    """Return a table as Markdown."""
    lines = [header, ["---"] * len(header), *cells]
    return "\n".join("| " + " | ".join(_escape(cell) for cell in line) + " |" for line in lines)


def without(missing: Sequence[str]) -> str:
    """Return e.g. ``2 shards that failed: c00000-00099_i000-009, c00100-00199_i000-009``."""
    more = f" and {len(missing) - LISTED:,} more" if len(missing) > LISTED else ""
    return f"{units.shards(len(missing))} that failed: {', '.join(missing[:LISTED])}{more}"


def _distinct(results: Iterable[Summary]) -> tuple[int, int] | None:
    facts = [result["distinct"] for result in results if "distinct" in result]
    return (facts[0]["images"], facts[0]["of"]) if facts else None


def _missing(results: Iterable[Summary]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(shard for row in results for shard in row.get("missing", ())))


def _student_cells(row: AccuracyRow) -> tuple[str, ...]:
    return (
        row.student,
        row.trained_on,
        str(row.last),
        str(row.ema),
        str(row.best),
        "-" if row.gain is None else f"{row.gain:+.1f}",
        str(row.seeds),
    )


def _gain(last: Mapping[tuple[str, str], Score], student: str, images_of: str) -> float | None:
    baseline = last.get((student, "random_real"))
    if baseline is None or images_of == "random_real":
        return None
    return last[student, images_of].mean - baseline.mean


def _top1(results: Iterable[Summary], which: str) -> list[float]:
    return [float(result[which]["top1"]) for result in results]


def _escape(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")
