"""File systems of fsspec, opened with bounded retries and without listing caches.

Every fault of a bucket is retried in exactly one place. botocore repeats whole requests (temporary
refusals, 5xx, time-outs, lost connections); the retry loop of s3fs around it is switched off.
`Steady` repeats the faults that botocore does not: interrupted response bodies, uploads that
arrived altered, and 409.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Any

from distill_core.naming.addresses import checkpoint_address
from distill_core.storage.error_hints import code_of
from distill_core.storage.packages import SCHEME, package_file
from distill_core.storage.requests import BEFORE_SEND, RECEIVED, requests_of_process
from distill_core.storage.signed_gets import StoredObject, get_objects

# A request that is always refused takes 6 attempts and at most 1 + 2 + 4 + 8 + 16 = 31 seconds of
# waiting, half of that on average. A server that accepts requests but never answers adds connect
# and read time-outs to each attempt: 6 * (10 + 30) + 31 = 271 seconds.
# After about 20 failed requests in a row, a process's client stops retrying until one succeeds.
# (aiohttp repeats a request once, immediately, if its connection was reset.)
REQUEST_ATTEMPTS = 6
CONNECT_SECONDS = 10
READ_SECONDS = 30  # without receiving a byte
REPEATS = 5  # attempts by `Steady`, which waits at most 0.1 + 0.2 + 0.4 + 0.8 = 1.5 seconds
FIRST_WAIT_SECONDS = 0.1
PART_BYTES = 50 * 2**20  # objects of at least two parts are uploaded in parts

S3_OPTIONS: Mapping[str, Any] = MappingProxyType(
    {
        # A listing cache would hide recent commits of other machines.
        "use_listings_cache": False,
        # A single GET returns one version of an object; parallel ranges could mix two.
        "max_concurrency": 1,
        # `Steady` changes the instance, which other code in this process must not share.
        "skip_instance_cache": True,
        "config_kwargs": {
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": READ_SECONDS,
            "retries": {"mode": "standard", "total_max_attempts": REQUEST_ATTEMPTS},
            # Several S3-compatible servers refuse the checksums that newer clients add, or store
            # them as data. Our own sha256 covers the data from end to end.
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
            # With Content-MD5 over https, botocore would leave the sha256 of the body out.
            "s3": {"payload_signing_enabled": True},
        },
    }
)
S3_PROTOCOL = "s3://"

# Raised while a body is read, when botocore already considers the request successful. Listed by
# name, so that none of these libraries has to be installed.
BROKEN_BODIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "aiohttp.client_exceptions": ("ClientPayloadError",),
        "aiobotocore.response": ("AioReadTimeoutError",),
        "botocore.exceptions": ("ResponseStreamingError", "IncompleteReadError"),
    }
)
TEMPORARY = frozenset(
    {
        "ConditionalRequestConflict",
        "OperationAborted",
        "BadDigest",  # the body does not match Content-MD5: it was altered on its way
        "IncompleteBody",
        "XAmzContentSHA256Mismatch",
        "EntityTooSmall",  # a part was cut on its way
        "InvalidPart",  # a part was acknowledged and lost
    }
)


class Steady:
    """A file system of s3fs whose methods retry the faults that its client does not.

    A missing bucket raises its own error; s3fs reports it as a missing file.
    """

    def __init__(self, fs: Any) -> None:
        """Wrap a file system of s3fs."""
        fs.retries = 1  # disables the loop in s3fs, around the one in botocore
        self._fs = fs

    def pipe_file(self, path: str, data: bytes, **options: Any) -> None:
        """Upload an object with its MD5, so that the server refuses a body that was altered."""
        digest = base64.b64encode(md5(data)).decode()
        options |= {"ContentMD5": digest, "chunksize": PART_BYTES}
        _with_retries(self._fs.pipe_file, path, data, **options)

    def get_objects(self, paths: Sequence[str]) -> list[StoredObject | None]:
        """Return whole objects of one bucket; None for each that `cat_ranges` has to read."""
        return get_objects(self._fs, paths)

    def __reduce__(self) -> tuple[Callable[[], Steady], tuple[()]]:
        """Pickle without state: the other process opens its own client with its own credentials."""
        return _current_s3, ()

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the file system; methods are wrapped in retries."""
        value = getattr(self._fs, name)
        return partial(_with_retries, value) if callable(value) else value


def open_filesystem(url: str) -> tuple[Any, str]:
    """Return the file system of an address and the path in it.

    Raises:
        ConfigError: the address holds credentials, is not one that can be opened, or is of a
            package that is not installed.
        ImportError, ValueError: no installed file system supports the protocol.
    """
    url = checkpoint_address(url, key="address")
    # fsspec imports every installed implementation; local folders do not need it.
    from fsspec.core import url_to_fs
    from fsspec.implementations.local import LocalFileSystem

    if url.startswith(S3_PROTOCOL):
        return _current_s3(), url.removeprefix(S3_PROTOCOL)
    if url.startswith(SCHEME):
        return LocalFileSystem(), package_file(url)
    if "://" not in url:  # a folder may be named like a chain of addresses
        return LocalFileSystem(), url
    fs, root = url_to_fs(url)
    return fs, str(root)


def md5(data: bytes) -> bytes:
    """Return the digest by which S3 servers check and describe what they receive."""
    return hashlib.md5(data, usedforsecurity=False).digest()


def loaded_errors(names: Mapping[str, tuple[str, ...]]) -> Iterator[type[Exception]]:
    """Yield the exceptions of a table (module -> names) whose modules are loaded."""
    for module, classes in names.items():
        if loaded := sys.modules.get(module):
            yield from (getattr(loaded, name) for name in classes)


def _current_s3() -> Steady:
    """Return the client of this process for the endpoint of its environment."""
    return _s3(os.getpid(), os.environ.get("AWS_ENDPOINT_URL"))


@lru_cache(maxsize=16)
def _s3(_pid: int, _endpoint: str | None) -> Steady:
    """Return the client of this process; it does not survive a fork."""
    import fsspec
    from aiobotocore.session import AioSession

    fs = fsspec.filesystem("s3", **S3_OPTIONS)
    # As s3fs makes it when it connects: a profile may be set in FSSPEC_S3_PROFILE.
    fs.session = AioSession(**fs.kwargs)
    fs.session.register(BEFORE_SEND, requests_of_process.count_event)
    fs.session.register(RECEIVED, requests_of_process.count_answer)
    return Steady(fs)


def _with_retries(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    wait = FIRST_WAIT_SECONDS
    for _ in range(REPEATS - 1):
        try:
            return _call(call, *arguments, **options)
        except Exception as error:
            if not _is_temporary(error):
                raise
        time.sleep(wait * random.random())  # spreads the retries of machines that failed together
        wait *= 2
    return _call(call, *arguments, **options)


def _call(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    try:
        return call(*arguments, **options)
    except FileNotFoundError as error:
        if code_of(error) == "NoSuchBucket":
            raise OSError(errno.ENXIO, "no such bucket") from error
        raise


def _is_temporary(error: Exception) -> bool:
    return isinstance(error, tuple(loaded_errors(BROKEN_BODIES))) or code_of(error) in TEMPORARY
