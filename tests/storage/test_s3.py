"""Writes and listings against a real HTTP S3 server."""

from __future__ import annotations

import time
from typing import Any

import pytest
from s3fs import S3FileSystem

from nucseg_ray.storage.atomic import remove, write_bytes
from nucseg_ray.storage.fetch import fetch_bytes, fetch_many
from nucseg_ray.storage.listing import find_files, list_files, walk_files
from nucseg_ray.storage.locations import Location


def test_what_is_written_is_listed_and_read(bucket: str) -> None:
    root = Location(bucket) / "folder"
    for number in range(40):
        write_bytes(root / f"a/{number:02}.bin", bytes([number]))
    assert list_files(root) == [(f"a/{number:02}.bin", 1) for number in range(40)]
    assert all(abs(file.changed_s - time.time()) < 60 for file in walk_files(root))
    names = [f"a/{number:02}.bin" for number in range(40)]
    assert list(fetch_many(root, names)) == [bytes([number]) for number in range(40)]
    write_bytes(root / "a/00.bin", b"new")
    remove(root / "a/01.bin")
    assert fetch_bytes(root / "a/00.bin") == b"new"
    assert len(list_files(root)) == 39


def test_a_listing_is_a_request_a_page_whatever_the_folders(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages hold a thousand names: 200,000 are 200 requests, and no more than a page of answers is held."""
    root = Location(bucket) / "plates"
    names = [f"P{number}/TimePoint_1/ZStep_{number}/x.tif" for number in range(9)]
    for name in names:
        write_bytes(root / name, b"x")
    root.fs.pipe_file(f"{root.path}/P3/", b"")  # as the console of S3 makes a folder
    pages: list[int] = []
    ask = S3FileSystem.call_s3

    def by_four(self: S3FileSystem, method: str, **request: Any) -> Any:
        answer = ask(self, method, **request, MaxKeys=4)
        pages.append(answer["KeyCount"])
        return answer

    monkeypatch.setattr(S3FileSystem, "call_s3", by_four)
    assert [file.path for file in walk_files(root)] == names
    assert pages == [4, 4, 2]


def test_a_folder_written_to_while_it_is_listed_is_no_file(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Location(bucket) / "model"
    ask = S3FileSystem.call_s3

    def ask_and_let_another_write(self: S3FileSystem, method: str, **request: Any) -> Any:
        answer = ask(self, method, **request)
        write_bytes(root / "lease.json", b"{}")
        return answer

    monkeypatch.setattr(S3FileSystem, "call_s3", ask_and_let_another_write)
    assert find_files(root) == []
    assert find_files(root) == [("lease.json", 2)]
