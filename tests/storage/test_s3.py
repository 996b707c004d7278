"""Writes and listings against a real HTTP S3 server."""

from __future__ import annotations

import time
from typing import Any

import pytest
from s3fs import S3FileSystem

from nucseg_ray.storage.atomic import remove, write_bytes
from nucseg_ray.storage.fetch import fetch_bytes, fetch_many
from nucseg_ray.storage.listing import list_dated, list_files
from nucseg_ray.storage.locations import Location


def test_what_is_written_is_listed_and_read(bucket: str) -> None:
    root = Location(bucket) / "folder"
    for number in range(40):
        write_bytes(root / f"a/{number:02}.bin", bytes([number]))
    assert list_files(root) == [(f"a/{number:02}.bin", 1) for number in range(40)]
    assert all(abs(file.changed_s - time.time()) < 60 for file in list_dated(root))
    names = [f"a/{number:02}.bin" for number in range(40)]
    assert list(fetch_many(root, names)) == [bytes([number]) for number in range(40)]
    write_bytes(root / "a/00.bin", b"new")
    remove(root / "a/01.bin")
    assert fetch_bytes(root / "a/00.bin") == b"new"
    assert len(list_files(root)) == 39


def test_a_listing_is_one_request_a_thousand_names(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the folders: 200,000 names are 200 requests."""
    root = Location(bucket) / "plates"
    names = [f"P{number}/TimePoint_1/ZStep_{number}/x.tif" for number in range(9)]
    for name in names:
        write_bytes(root / name, b"x")
    asked: list[str] = []
    ask = S3FileSystem._call_s3

    async def remember(self: S3FileSystem, method: str, *args: Any, **kwargs: Any) -> Any:
        asked.append(method)
        return await ask(self, method, *args, **kwargs)

    monkeypatch.setattr(S3FileSystem, "_call_s3", remember)
    assert [file.path for file in list_dated(root)] == names
    assert asked == ["list_objects_v2"]


def test_a_folder_written_to_while_it_is_listed_is_no_file(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Location(bucket) / "model"
    listing = S3FileSystem._lsdir
    listings: list[int] = []

    async def list_and_let_another_write(self: S3FileSystem, path: str, *args: Any, **kwargs: Any) -> Any:
        found = await listing(self, path, *args, **kwargs)
        listings.append(len(found))
        await self._pipe_file(f"{path}/lease.json", b"{}")
        return found

    monkeypatch.setattr(S3FileSystem, "_lsdir", list_and_let_another_write)
    assert list_files(root) == [("lease.json", 2)]
    assert listings[0] == 0
