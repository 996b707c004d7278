"""Writes and listings against a real HTTP S3 server."""

from __future__ import annotations

from typing import Any

import pytest
from s3fs import S3FileSystem

from nucseg_ray.storage.atomic import remove, write_bytes
from nucseg_ray.storage.fetch import fetch_bytes, fetch_many
from nucseg_ray.storage.listing import list_files
from nucseg_ray.storage.locations import Location


def test_what_is_written_is_listed_and_read(bucket: str) -> None:
    root = Location(bucket) / "folder"
    for number in range(40):
        write_bytes(root / f"a/{number:02}.bin", bytes([number]))
    assert list_files(root) == [(f"a/{number:02}.bin", 1) for number in range(40)]
    names = [f"a/{number:02}.bin" for number in range(40)]
    assert list(fetch_many(root, names)) == [bytes([number]) for number in range(40)]
    write_bytes(root / "a/00.bin", b"new")
    remove(root / "a/01.bin")
    assert fetch_bytes(root / "a/00.bin") == b"new"
    assert len(list_files(root)) == 39


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
