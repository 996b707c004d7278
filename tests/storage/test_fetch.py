from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from nucseg_ray.errors import InputError, MissingInputError
from nucseg_ray.storage.atomic import write_bytes
from nucseg_ray.storage.fetch import fetch_bytes, fetch_many
from nucseg_ray.storage.locations import Location


def test_files_come_in_order_and_errors_as_values(out: Location) -> None:
    names = [f"{number}.bin" for number in range(100)]
    for name in names:
        write_bytes(out / name, name.encode())
    wanted = [*names[:50], "missing.bin", "../outside", *names[50:]]
    found = list(fetch_many(out, wanted, threads=8))
    assert [item for item in found if isinstance(item, bytes)] == [name.encode() for name in names]
    missing, outside = found[50], found[51]
    assert isinstance(missing, MissingInputError)
    assert str(missing).startswith(f"{out}/missing.bin: expected a file, found none")
    assert isinstance(outside, InputError)
    assert "../outside" in str(outside)
    assert list(fetch_many(out, [])) == []


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found a folder"):
        fetch_bytes(Location(str(tmp_path)))


def test_files_are_fetched_at_the_same_time(memory: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(8)
    monkeypatch.setattr(MemoryFileSystem, "cat_file", lambda self, path: b"%d" % (together.wait(timeout=30) >= 0))
    assert list(fetch_many(memory, [str(number) for number in range(16)], threads=8)) == [b"1"] * 16


def test_it_reads_ahead_no_further_than_said(memory: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    def names() -> Iterator[str]:
        nonlocal asked
        for number in range(1000):
            asked += 1
            yield str(number)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", lambda self, path: b"")
    stream: Any = fetch_many(memory, names(), threads=4)
    for _ in range(10):
        next(stream)
    assert asked <= 10 + 2 * 4 + 1
    stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fetch")]


def test_whatever_a_client_raises_is_a_value(memory: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    class ClientError(Exception):
        pass

    def fail(self: MemoryFileSystem, path: str) -> bytes:
        raise PermissionError(13, "Permission denied") if path.endswith("a") else ClientError("throttled")

    monkeypatch.setattr(MemoryFileSystem, "cat_file", fail)
    denied, throttled = fetch_many(memory, ["a", "b"])
    assert isinstance(denied, InputError)
    assert "may not be read (Permission denied)" in str(denied)
    assert isinstance(throttled, InputError)
    assert "throttled" in str(throttled)
    assert isinstance(throttled.__cause__, ClientError)
