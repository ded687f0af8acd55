"""File systems of fsspec as this project opens them: patient within bounds, never from a cache.

Every fault of a bucket is retried in exactly one place. Whole requests are repeated by botocore
(refusals that pass, 5xx, time-outs, lost connections), which s3fs would otherwise multiply by a
loop of its own. `Steady` repeats what botocore does not: bodies that break off, and 409.
"""

from __future__ import annotations

import errno
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Any

from distill_core.storage.error_hints import code_of

# At worst, a request that is refused for ever takes 6 attempts and 1 + 2 + 4 + 8 + 16 = 31 seconds
# of waiting, half of it on average. A server that takes requests and never answers adds connecting
# and reading time-outs to each attempt: 6 * (10 + 30) + 31 = 271 seconds.
# After some 20 requests given up in a row, a process's client retries no more until others succeed.
# (aiohttp sends a request once more, at once, when its connection turns out to be reset.)
REQUEST_ATTEMPTS = 6
CONNECT_SECONDS = 10
READ_SECONDS = 30  # without a byte
REPEATS = 5  # of what only `Steady` repeats; it waits 0.1 + 0.2 + 0.4 + 0.8 = 1.5 seconds at most
FIRST_WAIT_SECONDS = 0.1

S3_OPTIONS: Mapping[str, Any] = MappingProxyType(
    {
        # A listing cache would hide what another machine has just committed.
        "use_listings_cache": False,
        # One GET returns one version of an object; ranges fetched side by side could mix two.
        "max_concurrency": 1,
        # What others in this process open stays theirs: `Steady` changes ours.
        "skip_instance_cache": True,
        "config_kwargs": {
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": READ_SECONDS,
            "retries": {"mode": "standard", "total_max_attempts": REQUEST_ATTEMPTS},
            # What newer clients add by default is refused, or stored as data, by several
            # S3-compatible servers. Our own sha256 goes from end to end.
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
        },
    }
)
S3_PROTOCOLS = ("s3", "s3a")

# Raised while a body is read, so botocore has already called the request a success. By name: none
# of these libraries has to be installed.
BROKEN_BODIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "aiohttp.client_exceptions": ("ClientPayloadError",),
        "aiobotocore.response": ("AioReadTimeoutError",),
        "botocore.exceptions": ("ResponseStreamingError", "IncompleteReadError"),
    }
)
CONFLICTS = frozenset({"ConditionalRequestConflict", "OperationAborted"})


class Steady:
    """A file system of s3fs whose methods repeat what its client does not.

    A missing bucket is an error of its own here; s3fs calls it a missing file.
    """

    def __init__(self, fs: Any) -> None:
        """Wrap a file system of s3fs."""
        fs.retries = 1  # of the loop in s3fs, around the one in botocore
        self._fs = fs

    def __reduce__(self) -> tuple[Callable[[], Steady], tuple[()]]:
        """Travel as nothing at all: the other process opens its own, with its own credentials."""
        return _s3_here, ()

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the file system, its methods made steady."""
        found = getattr(self._fs, name)
        return partial(_steadily, found) if callable(found) else found


def open_filesystem(url: str) -> tuple[Any, str]:
    """Return the file system of an URL and the path in it.

    Raises:
        ImportError, ValueError: no installed file system knows the protocol.
    """
    # fsspec loads what it finds installed; a local folder does without it.
    from fsspec.core import strip_protocol, url_to_fs

    if url.partition("://")[0] in S3_PROTOCOLS:
        return _s3_here(), str(strip_protocol(url))
    fs, root = url_to_fs(url)
    return fs, str(root)


def loaded_errors(names: Mapping[str, tuple[str, ...]]) -> Iterator[type[Exception]]:
    """Yield the exceptions of a table (module -> names) whose modules are in use."""
    for module, classes in names.items():
        if found := sys.modules.get(module):
            yield from (getattr(found, name) for name in classes)


def _s3_here() -> Steady:
    """Return the client of this process for where its environment points."""
    return _s3(os.getpid(), os.environ.get("AWS_ENDPOINT_URL"))


@lru_cache(maxsize=16)
def _s3(_pid: int, _endpoint: str | None) -> Steady:
    """Return the one client of this process, which no fork would survive."""
    import fsspec

    return Steady(fsspec.filesystem("s3", **S3_OPTIONS))


def _steadily(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    wait = FIRST_WAIT_SECONDS
    for _ in range(REPEATS - 1):
        try:
            return _called(call, *arguments, **options)
        except Exception as error:
            if not _passes(error):
                raise
        time.sleep(wait * random.random())  # machines that failed together return apart
        wait *= 2
    return _called(call, *arguments, **options)


def _called(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    try:
        return call(*arguments, **options)
    except FileNotFoundError as error:
        if code_of(error) == "NoSuchBucket":
            raise OSError(errno.ENXIO, "no such bucket") from error
        raise


def _passes(error: Exception) -> bool:
    return isinstance(error, tuple(loaded_errors(BROKEN_BODIES))) or code_of(error) in CONFLICTS
