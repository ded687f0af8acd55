"""The exception tree. Messages follow one template:

``<where>: <what came>, <what was expected>. <what to do>.``

Each class takes exactly one string, and `Problems` one or more: an exception with required keyword
arguments cannot be unpickled and would reach the driver as Ray's ``UnserializableException``,
without its message.

DistillError                retryable = False
├── ConfigError             the configuration is wrong: correct it
├── DataError               input is missing, truncated or of another shape: correct the data
│   ├── ShardError          a stored shard does not match its marker
│   └── MissingDataError    a folder or file of the dataset is not there on this machine
├── Problems                several of these errors that do not depend on each other
├── DivergedError           a loss is not finite any more; the same seed would repeat this
├── OutOfMemoryError        a device has too little memory for a job; half of it may fit
├── ShardsFailed            some shards failed in all attempts; the others are done
│   └── ShardsPostponed     retryable: each of them failed for a reason that may pass by itself
├── RunIncomplete           a pass over a whole run has left something to do
├── StorageError            retryable: the object store refused or timed out
│   └── StorageRefused      not retryable: permission, credentials or address
└── ClusterError            retryable: a node, actor or worker process was lost or did not start
"""

from __future__ import annotations

import reprlib
from collections.abc import Sequence

from distill_core.redaction import redacted, sanitised

MAX_LINE = 1000  # characters of a message in one line
SHOWN = 120  # characters of a value in a message


def one_line(error: object) -> str:
    """Return a message in one line of printable characters; a long one loses its middle.

    Credentials are hidden first: without its scheme, the rest of a URL looks like any other text.
    """
    text = " ".join(redacted(str(error)).split())
    if len(text) > MAX_LINE:
        text = f"{text[: MAX_LINE * 2 // 3]} ... {text[-MAX_LINE // 4 :]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown(value: object) -> str:
    """Return a value as Python writes it, without credentials and shortened, for messages."""
    text = _SHORT.repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


class _Short(reprlib.Repr):
    """Bounded in length, depth and time, also for numbers that Python refuses to write.

    Credentials are hidden before anything is cut.
    """

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = SHOWN
        self.maxdict = self.maxlist = self.maxtuple = 8

    def repr_int(self, x: int, level: int) -> str:
        """Return a number, or the length of a very long one."""
        return repr(x) if x.bit_length() < 256 else f"a number of {x.bit_length()} bits"

    def repr_str(self, x: str, level: int) -> str:
        """Return a text in quotes, shortened."""
        return super().repr_str(redacted(x), level)

    def repr_instance(self, x: object, level: int) -> str:
        """Return a value of any other type, shortened."""
        return super().repr_instance(_Written(x), level)


class _Written:
    """A value whose `repr` has no credentials."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __repr__(self) -> str:
        return redacted(repr(self._value))


_SHORT = _Short()


class DistillError(Exception):
    """Base of every error this project raises on purpose; its message holds no credentials."""

    retryable = False

    def __init__(self, *message: object) -> None:
        super().__init__(*(sanitised(part) if isinstance(part, str) else part for part in message))


class ConfigError(DistillError):
    """The configuration of a run is wrong."""


class DataError(DistillError):
    """Input is missing, truncated or of another shape."""


class ShardError(DataError):
    """A stored shard does not match its marker."""


class MissingDataError(DataError):
    """A folder or file of the dataset is not there; another machine may have it."""


class ChangedDataError(DataError):
    """The dataset is no longer what was planned; only another plan can succeed."""


class Problems(DistillError):
    """Several errors that do not depend on each other, one message for each."""

    @property
    def lines(self) -> tuple[str, ...]:
        """Return the messages, each in one line and with its number."""
        return tuple(f"{n}. {one_line(text)}" for n, text in enumerate(self.args, 1))

    def __str__(self) -> str:
        return "\n".join((f"{len(self.args)} problems:", *self.lines))


def raise_all(errors: Sequence[DistillError]) -> None:
    """Raise one error as it is, and several as `Problems`; equal messages count once.

    Raises:
        DistillError: there is at least one.
    """
    texts: dict[str, None] = {}
    for error in errors:
        parts = error.args if isinstance(error, Problems) else (str(error),)
        texts |= dict.fromkeys(map(str, parts))
    if len(texts) > 1:
        raise Problems(*texts)
    if errors:
        raise errors[0]


class DivergedError(DistillError):
    """A loss is not finite."""


class OutOfMemoryError(DistillError):
    """A device has too little memory for a job."""


class ShardsFailed(DistillError):
    """Some shards failed in all attempts; every other shard is done."""


class ShardsPostponed(ShardsFailed):
    """Some shards failed in all attempts, each for a reason that may pass by itself."""

    retryable = True


class RunIncomplete(DistillError):
    """A pass over a whole run has ended without an error and without its results."""


class StorageError(DistillError):
    """The object store refused, timed out, or lost a request."""

    retryable = True


class StorageRefused(StorageError):
    """The object store refuses until credentials, permissions or address are changed."""

    retryable = False


class ClusterError(DistillError):
    """A node, an actor or a worker process was lost or did not become ready."""

    retryable = True
