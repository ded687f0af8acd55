"""Whole objects of a bucket in requests that the client of s3fs signs and sends, and no more.

One object through all layers of s3fs and botocore takes a millisecond of CPU time. Most of it finds
the address of the bucket, checks parameters and describes the answer, which is the same for every
object. Here the address is found once for many objects. The client signs and sends each request, so
credentials, anonymous access, time-outs, proxies and certificates are its own.

There is one attempt. What is not answered by a whole object is left to the file system, whose
retries and errors are those of every other request.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from distill_core.storage.requests import requests_of_process

REGION = "x-amz-bucket-region"  # header of answers
# By bucket, where it is not that of the client. The client looks up the address in it by itself.
_regions: dict[str, str] = {}


class StoredObject(NamedTuple):
    """An object as it was sent."""

    data: bytes
    etag: str  # of these bytes, as in a listing; empty: the server does not state it


def get_objects(fs: Any, paths: Sequence[str]) -> list[StoredObject | None]:
    """Return whole objects; None for each that the file system has to read itself.

    Args:
        fs: a file system of s3fs.
        paths: of objects in one bucket, with its name.
    """
    bucket = paths[0].partition("/")[0] if paths else ""
    # Such requests have further parameters; an access point has an address of another form.
    if not bucket or bucket.startswith("arn:") or fs.req_kw or fs.s3_additional_kwargs:
        return [None] * len(paths)
    from fsspec.asyn import sync

    found: list[StoredObject | None] = sync(fs.loop, _get_all, fs, bucket, paths)
    return found


async def _get_all(fs: Any, bucket: str, paths: Sequence[str]) -> list[StoredObject | None]:
    try:
        client = await fs.set_session()
        # By name: this package imports no client of a cloud; the file system has loaded it.
        request = sys.modules["botocore.awsrequest"].AWSRequest
        address = await client.generate_presigned_url(
            "get_object", Params={"Bucket": bucket, "Key": "k"}
        )
    except Exception:  # noqa: BLE001 - whatever it is, the file system raises it again
        return [None] * len(paths)
    base = address.partition("?")[0].removesuffix("k")
    keys = (quote(path.removeprefix(f"{bucket}/"), safe="/~") for path in paths)
    requests = [request("GET", base + key) for key in keys]
    return await asyncio.gather(*(_get(client, bucket, each) for each in requests))


async def _get(client: Any, bucket: str, request: Any) -> StoredObject | None:
    try:
        region = _regions.get(bucket)
        await client._request_signer.sign("GetObject", request, region_name=region)
        requests_of_process.count("read")
        answer = await client._endpoint.http_session.send(request.prepare())
        data = bytes(await answer.content)  # an interrupted body is an error
        requests_of_process.count_bytes("read", len(data))
    except Exception:  # noqa: BLE001 - likewise
        return None
    if answer.status_code == 200:
        return StoredObject(data, answer.headers.get("etag", ""))
    if REGION in answer.headers:  # sign the next requests for it
        _regions[bucket] = answer.headers[REGION]
    return None
