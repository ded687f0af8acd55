"""Listings: complete, limited to their prefix, with times in UTC and every page of uploads."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from distill_core.errors import StorageError
from distill_core.storage import backends
from distill_core.storage.store import Store
from tests.support.places import local_store


def test_an_unreadable_folder_is_not_listed_as_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, scan = local_store(tmp_path), os.scandir
    store.put("f/deeper/a", b"x")

    def refuse(path: str) -> object:
        if str(path).endswith("deeper"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(StorageError, match="f: cannot be listed"):
        store.files("f")


def test_links_are_listed_and_not_followed(tmp_path: Path) -> None:
    store, elsewhere = local_store(tmp_path), tmp_path / "elsewhere"
    store.put("recover/data/a", b"x")
    elsewhere.mkdir()
    (elsewhere / "b").write_bytes(b"y")
    for name, target in (
        ("folder", elsewhere),
        ("file", elsewhere / "b"),
        ("none", tmp_path / "-"),
    ):
        Path(store.url, "recover/data", name).symlink_to(target)
    listed = {file.path: file.regular for file in store.files("recover")}
    links = {f"recover/data/{name}" for name in ("folder", "file", "none")}
    assert listed == {"recover/data/a": True} | dict.fromkeys(links, False)
    for folder in ("recover/data/folder", "recover/data/folder/deeper"):
        assert [file.path for file in store.files(folder)] == ["recover/data/folder"]


def test_a_store_may_be_a_link_itself(tmp_path: Path) -> None:
    store = local_store(tmp_path)
    store.put("recover/data/a", b"x")
    (tmp_path / "link").symlink_to(store.url)
    linked = Store(str(tmp_path / "link"))
    assert [(file.path, file.regular) for file in linked.files("recover")] == [
        ("recover/data/a", True)
    ]
    assert linked.delete_unlinked("recover/data/a")
    assert store.files("recover") == ()


def test_nothing_is_deleted_through_a_link(tmp_path: Path) -> None:
    store, elsewhere = local_store(tmp_path), tmp_path / "elsewhere"
    store.put("recover/data/a", b"x")
    Path(store.url, "recover/data").rename(elsewhere)
    Path(store.url, "recover/data").symlink_to(elsewhere)
    Path(store.url, "recover/link").symlink_to(elsewhere / "a")
    assert not store.delete_unlinked("recover/data/a")
    assert not store.delete_unlinked("recover/link")
    assert (elsewhere / "a").read_bytes() == b"x"
    assert Path(store.url, "recover/link").is_symlink()


def test_deleting_what_is_gone_is_no_error(store: Store) -> None:
    store.put("f/a", b"x")
    assert store.delete_unlinked("f/a")
    assert store.delete_unlinked("f/a")
    assert store.delete_unlinked("no/such/folder/a")
    assert not store.exists("f/a")


class PlainFs:
    """A file system whose listings have no times, or times as text."""

    def __init__(self, entry: dict[str, object]) -> None:
        """Keep the listing of the one object."""
        self.entry = {"name": "bucket/a", "type": "file", "size": 1, **entry}

    def find(self, _path: str, *, detail: bool) -> dict[str, object]:
        """List the object."""
        assert detail
        return {"bucket/a": self.entry}

    def modified(self, _path: str) -> datetime:
        """Return a time without a zone, as some file systems do."""
        return datetime(2026, 1, 2)


@pytest.mark.parametrize(
    "entry",
    [{}, {"mtime": "2026-01-02T01:00:00+01:00"}, {"mtime": 1767312000.0}, {"updated": None}],
)
def test_times_are_utc_whatever_the_file_system_returns(entry: dict[str, object]) -> None:
    (file,) = backends.ObjectBackend(PlainFs(entry), "bucket").files("", partial=False)
    assert file.modified == datetime(2026, 1, 2, tzinfo=UTC)


class PagingFs:
    """Answers one upload per page, as a bucket with thousands of them does."""

    def __init__(self) -> None:
        """Start with three uploads."""
        self.ids = ["u0", "u1", "u2"]

    def list_multipart_uploads(self, _bucket: str) -> None:
        """Be there: this is how an S3 file system is recognised."""

    def call_s3(self, method: str, **request: str) -> dict[str, object]:
        """List from a marker on, or abort."""
        if method == "abort_multipart_upload":
            assert request["Key"] == "prefix/big"
            if request["UploadId"] not in self.ids:
                raise FileNotFoundError
            self.ids.remove(request["UploadId"])
            return {}
        assert (request["Bucket"], request["Prefix"]) == ("bucket", "prefix/")
        here = self.ids.index(request.get("UploadIdMarker", self.ids[0]))
        here += "UploadIdMarker" in request
        upload = {
            "Key": "prefix/big",
            "UploadId": self.ids[here],
            "Initiated": datetime(2026, 1, 2),
        }
        more = {"NextKeyMarker": "prefix/big", "NextUploadIdMarker": self.ids[here]}
        return {"Uploads": [upload], "IsTruncated": here < len(self.ids) - 1, **more}


def test_uploads_on_every_page_are_listed_and_may_be_aborted_twice() -> None:
    backend = backends.ObjectBackend(PagingFs(), "bucket/prefix")
    found = list(backend.uploads())
    assert [(upload.path, upload.id) for upload in found] == [("big", f"u{n}") for n in range(3)]
    assert found[0].begun == datetime(2026, 1, 2, tzinfo=UTC)
    backend.abort(found[1])
    backend.abort(found[1])
    assert [upload.id for upload in backend.uploads()] == ["u0", "u2"]
