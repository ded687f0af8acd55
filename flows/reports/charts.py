"""Charts of the report as SVG, each in a light and a dark version.

Figures are made without pyplot, which keeps global state. The colours are those of Okabe and Ito,
which colour-blind readers can tell apart. Matplotlib is imported when a chart is drawn: it writes
a cache of fonts to the home folder, which a dry run must not.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8B8B00")
INK: Mapping[str, str] = {"light": "#222222", "dark": "#dddddd"}
SETTINGS: Mapping[str, Any] = {
    "svg.fonttype": "none",  # text stays text, which is smaller and works with screen readers
    "svg.hashsalt": "distill",  # the same numbers give the same bytes
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
INKED = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
MANY_BARS = 1500  # more bars are drawn as pixels, because vectors would take megabytes


@dataclass(frozen=True)
class Image:
    """One image for the report."""

    mime: str
    data: bytes


@dataclass(frozen=True)
class Chart:
    """One chart in both colour schemes, and its content in words."""

    title: str
    alt: str
    light: Image
    dark: Image


@dataclass(frozen=True)
class Span:
    """One shard on the timeline, in seconds since the first one began."""

    stage: str
    host: str
    start: float
    end: float


Trace = Sequence[Mapping[str, float]]  # one batch: {"step", "low", "lr", term...} per logged step


def loss_chart(traces: Sequence[Trace]) -> Chart:
    """Draw each term over steps: median and 10-90 % band over batches."""
    terms = [name for name in traces[0][0] if name not in ("step", "low", "lr")]

    def draw(figure: Figure) -> None:
        for axes, term, colour in zip(_row(figure, len(terms)), terms, COLOURS * 3, strict=False):
            steps, low, middle, high = band(traces, term)
            axes.fill_between(steps, low, high, color=colour, alpha=0.25, linewidth=0)
            axes.plot(steps, middle, color=colour)
            axes.set_title(term.replace("_", " "))
            axes.set_xlabel("step")
            if min(low) > 0:
                axes.set_yscale("log")

    alt = "; ".join(f"{term}: {_ends(band(traces, term)[2])}" for term in terms)
    return _chart("Loss terms", f"Median over {len(traces)} batches. {alt}.", draw, width=9)


def curriculum_chart(trace: Trace) -> Chart:
    """Draw the lower bound of the crop area and the learning rate over steps."""
    steps = [row["step"] for row in trace]
    low = [row["low"] for row in trace]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot(steps, low, color=COLOURS[0])
        axes.fill_between(steps, low, 1.0, color=COLOURS[0], alpha=0.15, linewidth=0)
        axes.set(xlabel="step", ylim=(0, 1.05))
        axes.set_ylabel("crop area, lower bound to 1", color=COLOURS[0])
        right = axes.twinx()
        right.plot(steps, [row["lr"] for row in trace], color=COLOURS[1], linestyle="--")
        right.set_ylabel("learning rate (dashed)", color=COLOURS[1])
        right.spines["right"].set_visible(True)
        right.set_ylim(bottom=0)

    alt = f"Lower bound of the crop area: {_ends(low)} over {len(steps)} logged steps."
    return _chart("Curriculum", alt, draw, width=5)


def training_chart(curves: Mapping[str, Sequence[tuple[float, float]]]) -> Chart:
    """Draw test top-1 accuracy over epochs.

    Args:
        curves: (epoch, percent) by name of the student and its set.
    """

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for (name, points), colour in zip(curves.items(), COLOURS * 9, strict=False):
            axes.plot(*zip(*points, strict=True), color=colour, label=name, marker=".")
        axes.set(xlabel="epoch", ylabel="top-1 accuracy, %")
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False, fontsize=8)

    alt = "; ".join(f"{name}: {_ends([y for _, y in points])} %" for name, points in curves.items())
    return _chart("Post-train", f"Test accuracy by epoch, mean over seeds. {alt}.", draw, width=7)


def timeline_chart(spans: Sequence[Span]) -> Chart:
    """Draw the times of shards; shards of a host that overlap are in different lanes."""
    rows = lanes(spans)
    stages = list(dict.fromkeys(span.stage for span in spans))
    colours = dict(zip(stages, COLOURS, strict=False))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for number, row in enumerate(rows):
            bars = [(span.start / 60, max(span.end - span.start, 0.05) / 60) for span in row]
            axes.broken_barh(bars, (number - 0.4, 0.8), color=[colours[span.stage] for span in row])
        for stage in stages:
            axes.plot([], [], color=colours[stage], linewidth=6, label=stage)
        axes.set(xlabel="minutes since the first shard began", yticks=range(len(rows)))
        axes.set_yticklabels([row[0].host for row in rows])
        axes.legend(frameon=False, ncols=len(stages), loc="lower left", bbox_to_anchor=(0, 1))

    total = max(span.end for span in spans) / 60
    alt = f"{len(spans)} shards in {len(rows)} lanes over {total:.1f} minutes."
    height = min(8.0, 1.2 + 0.25 * len(rows))
    pixels = len(spans) > MANY_BARS
    return _chart("Shard timeline", alt, draw, width=9, height=height, pixels=pixels)


def band(
    traces: Sequence[Trace], term: str
) -> tuple[list[float], list[float], list[float], list[float]]:
    """Return steps, 10th percentile, median and 90th percentile of a term over batches."""
    by_step: dict[float, list[float]] = {}
    for trace in traces:
        for row in trace:
            by_step.setdefault(row["step"], []).append(row[term])
    steps = sorted(by_step)
    low, middle, high = (
        [float(np.percentile(by_step[step], percent)) for step in steps] for percent in (10, 50, 90)
    )
    return steps, low, middle, high


def lanes(spans: Sequence[Span]) -> list[list[Span]]:
    """Distribute overlapping spans over lanes, as few as possible per host."""
    rows: list[list[Span]] = []
    for span in sorted(spans, key=lambda span: (span.host, span.start)):
        free = (r for r in rows if r[0].host == span.host and r[-1].end <= span.start + 1e-3)
        lane = next(free, None)
        if lane is None:
            rows.append([span])
        else:
            lane.append(span)
    return rows


def _chart(
    title: str,
    alt: str,
    draw: Callable[[Figure], None],
    *,
    width: float,
    height: float = 2.8,
    pixels: bool = False,
) -> Chart:
    light, dark = (_render(draw, INK[theme], width, height, pixels) for theme in ("light", "dark"))
    return Chart(title, alt, light, dark)


def _render(
    draw: Callable[[Figure], None], ink: str, width: float, height: float, pixels: bool
) -> Image:
    import matplotlib
    from matplotlib.figure import Figure

    settings: Any = {**SETTINGS, **dict.fromkeys(INKED, ink)}
    stream = io.BytesIO()
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        if pixels:
            figure.savefig(stream, format="png", transparent=True, dpi=110)
            return Image("image/png", stream.getvalue())
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    return Image("image/svg+xml", stream.getvalue())


def _row(figure: Figure, count: int) -> list[Axes]:
    return list(np.atleast_1d(figure.subplots(1, count)))


def _ends(values: Sequence[float]) -> str:
    return f"{values[0]:.4g} to {values[-1]:.4g}"
