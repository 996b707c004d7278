"""Writes and listings against a real HTTP S3 server."""

from __future__ import annotations

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
