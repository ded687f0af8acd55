"""Whether an imported teacher knows the classes of the dataset, and in which order.

A file of weights does not state its class list: a teacher whose classes stand in another order, or
one that was never trained, fits the network as well as any other. Only its accuracy shows it.

Axes: n images, C classes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import numpy as np

from distill_core.config.training import ImportConfig
from distill_core.errors import ConfigError

# Share of the way from guessing to 100 % that a teacher must have gone unless the config differs.
LEAST_SHARE = 0.1
CHANCE = 1e-3  # an accuracy that guessing reaches with this probability does not count
# Images that another order must gain for each that it loses. A weak teacher confuses similar
# classes so systematically that some other order is a little better: that refuses no teacher.
SURE_GAIN = 4.0
LIKELY_GAIN = 1.5  # where the teacher is refused anyway, and the order only explains it
MARGIN = 2.0  # percentage points below the expected top-1 that are accepted
LISTED = 100  # outputs that an error lists, at most


def check_import(
    predicted: np.ndarray,
    labels: np.ndarray,
    config: ImportConfig,
    *,
    classes: int,
    where: str,
    explain: Callable[[], str] = lambda: "",
) -> None:
    """Refuse a teacher that is less accurate than expected, or hardly better than guessing.

    Where even a perfect teacher would be no better than guessing, only the expected accuracy and
    the order count.

    Args:
        predicted: (n,) class ids, as the teacher orders its outputs.
        labels: (n,) class ids.
        config: what is expected; `accept_any` accepts every teacher.
        classes: C.
        where: names the file in errors.
        explain: returns a sentence about another network that fits the file better, or "".

    Raises:
        ConfigError: it is refused; names the order of the outputs or the network that would fit,
            if one does.
    """
    if config.accept_any:
        return
    top1 = 100 * float(np.mean(predicted == labels))
    problem = _problem(predicted, labels, config)
    gain = LIKELY_GAIN if problem else SURE_GAIN
    order = output_order(predicted, labels, classes=classes, gain=gain)
    if order is None and not problem:
        return
    measured = f"{where}: top-1 is {top1:.1f} % on {len(labels):,} test images"
    override = "or set squeeze.imported.accept_any=true"
    if order is None and (explanation := explain()):
        raise ConfigError(f"{measured}, {problem}. {explanation}")
    if order is None:
        raise ConfigError(
            f"{measured}, {problem}. Check that squeeze.model, with its first layers, data.mean, "
            f"data.std and data.side are those that the file was trained with, {override}."
        )
    because = f", {problem}" if problem else ""
    fitting = 100 * float(np.mean(order[predicted] == labels))
    raise ConfigError(
        f"{measured}{because}: its classes stand in another order. With {_described(order)} it "
        f"would be {fitting:.1f} %. Set squeeze.imported.outputs to the class of every output"
        f"{_setting(order)}, {override}."
    )


def _problem(predicted: np.ndarray, labels: np.ndarray, config: ImportConfig) -> str:
    """Return the reason for which the accuracy is too low, or an empty text."""
    top1 = 100 * float(np.mean(predicted == labels))
    if can_be_judged(labels) and not better_than_chance(predicted, labels):
        return "which is no better than guessing"
    if config.top1 is not None and top1 < config.top1 - MARGIN:
        return f"expected {config.top1:.1f} %"
    if top1 < (least := least_accuracy(labels, config)):
        return f"expected at least {least:.1f} % (squeeze.imported.min_accuracy)"
    return ""


def least_accuracy(labels: np.ndarray, config: ImportConfig) -> float:
    """Return the lowest top-1 that is accepted, percent.

    Without one in the config it is `LEAST_SHARE` of the way from guessing to 100 %, or 0 where no
    teacher could be told from guesses.
    """
    if config.min_accuracy is not None:
        return config.min_accuracy
    if not can_be_judged(labels):
        return 0.0
    chance = 100 * float(np.bincount(labels).max()) / len(labels)
    return chance + LEAST_SHARE * (100 - chance)


def can_be_judged(labels: np.ndarray) -> bool:
    """Return whether a teacher that is always right would be better than guessing.

    It would not be where there are few images, or where most of them are of one class.

    Args:
        labels: (n,) class ids of the test images.
    """
    return len(labels) > 0 and better_than_chance(labels, labels)


def better_than_chance(predicted: np.ndarray, labels: np.ndarray) -> bool:
    """Return whether so many hits are improbable for guesses, by the Chernoff bound.

    A guess is right at most as often as the largest class is.
    """
    chance = float(np.bincount(labels).max()) / len(labels)
    share = float(np.mean(predicted == labels))
    if share <= chance:
        return False
    divergence = share * math.log(share / chance)
    if share < 1:
        divergence += (1 - share) * math.log((1 - share) / (1 - chance))
    return math.exp(-len(labels) * divergence) < CHANCE


def output_order(
    predicted: np.ndarray, labels: np.ndarray, *, classes: int, gain: float = SURE_GAIN
) -> np.ndarray | None:
    """Return the class of every output, (C,) int64, if another order fits better; else None.

    The order is chosen on every other image and judged on the rest, by McNemar's exact test (in
    its one-sided form): of the images that only one of the two orders gets right, as many as the
    other order has must be improbable if both were equally good, and `gain` times the rest.
    """
    first, rest = slice(0, None, 2), slice(1, None, 2)
    trial = _fitted(predicted[first], labels[first], classes)[predicted[rest]]
    right, given = trial == labels[rest], predicted[rest] == labels[rest]
    if not _clearly_better(right, given, gain):
        return None
    if not better_than_chance(trial, labels[rest]):
        return None
    return _fitted(predicted, labels, classes)


def explains(other: np.ndarray, predicted: np.ndarray, labels: np.ndarray) -> bool:
    """Return whether the predictions of another network are clearly better, and not guesses.

    Args:
        other: (n,) its class ids.
        predicted: (n,) those of the network of the config.
        labels: (n,) class ids.
    """
    better = _clearly_better(other == labels, predicted == labels, LIKELY_GAIN)
    return better and better_than_chance(other, labels)


def _clearly_better(right: np.ndarray, given: np.ndarray, gain: float) -> bool:
    """Return whether predictions are better than given ones by McNemar's test; both (n,) bool."""
    gained, lost = int(np.sum(right & ~given)), int(np.sum(given & ~right))
    return gained > gain * lost and _sign_test(gained, lost) < CHANCE


def _sign_test(more: int, fewer: int) -> float:
    """Return the probability of at least `more` heads in `more` + `fewer` throws of a coin."""
    count = more + fewer
    logs = [
        math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
        for k in range(more, count + 1)
    ]
    return math.fsum(math.exp(log - count * math.log(2)) for log in logs)


def _fitted(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Return the class of every output: the most frequent pairs first, the rest in order.

    Of equally frequent pairs, those that leave an output where it is come first.
    """
    pairs = Counter(zip(predicted.tolist(), labels.tolist(), strict=True))
    order, taken = np.full(classes, -1), set[int]()
    ranked = sorted(pairs.items(), key=lambda item: (-item[1], item[0][0] != item[0][1], item[0]))
    for (output, label), _ in ranked:
        if order[output] < 0 and label not in taken:
            order[output] = label
            taken.add(label)
    # Outputs without images keep their class where it is free.
    for output in np.flatnonzero(order < 0):
        if int(output) not in taken:
            order[output] = output
            taken.add(int(output))
    order[order < 0] = [label for label in range(classes) if label not in taken]
    return order


def _described(order: np.ndarray) -> str:
    shifts = np.unique((order - np.arange(len(order))) % len(order))
    if len(shifts) == 1:
        return f"every output moved by {shifts[0]}"
    moved = np.flatnonzero(order != np.arange(len(order)))
    pairs = ", ".join(f"output {output} as class {order[output]}" for output in moved[:3])
    return f"{pairs}" + (f" and {len(moved) - 3:,} more" if len(moved) > 3 else "")


def _setting(order: np.ndarray) -> str:
    if len(order) > LISTED:
        return " (distill_core.squeeze.import_check.output_order returns it)"
    return f", [{','.join(map(str, order.tolist()))}]"
