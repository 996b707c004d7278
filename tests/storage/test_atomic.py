from __future__ import annotations

import errno
import json
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nucseg_ray.errors import OutputError
from nucseg_ray.storage.atomic import remove, sweep_temporaries, write_bytes, write_json, write_table
from nucseg_ray.storage.fetch import fetch_bytes
from nucseg_ray.storage.listing import find_files
from nucseg_ray.storage.locations import Location


@pytest.mark.parametrize("durable", [False, True])
def test_bytes_are_written_and_written_over(out: Location, durable: bool) -> None:
    there = out / "a" / "b.bin"
    write_bytes(there, b"old and longer", durable=durable)
    write_bytes(there, memoryview(b"new"), durable=durable)
    assert fetch_bytes(there) == b"new"
    assert [name for name, _ in find_files(out)] == ["a/b.bin"]


def test_tables_and_json_come_back(out: Location) -> None:
    table = pa.table({"x": ["ä", None]})
    write_table(out / "t.parquet", table)
    data = pq.ParquetFile(pa.BufferReader(fetch_bytes(out / "t.parquet")))
    assert data.read() == table
    assert data.metadata.row_group(0).column(0).compression == "ZSTD"
    write_json(out / "v.json", {"b": "ä", "a": [1, None]})
    assert json.loads(fetch_bytes(out / "v.json")) == {"b": "ä", "a": [1, None]}
    assert "ä".encode() in fetch_bytes(out / "v.json")
    with pytest.raises(ValueError, match="JSON"):
        write_json(out / "v.json", float("nan"))


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    there = Location(str(tmp_path)) / "x.bin"
    versions = (b"a" * 3_000_000, b"b" * 1_000_000)
    write_bytes(there, versions[0])
    done = threading.Event()

    def write() -> None:
        for turn in range(60):
            write_bytes(there, versions[turn % 2])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    while not done.is_set():
        seen.add((tmp_path / "x.bin").read_bytes())
    writer.join()
    assert seen <= set(versions)


@pytest.mark.parametrize(
    ("code", "remedy"), [(errno.ENOSPC, "free space"), (errno.EACCES, "permissions"), (errno.EROFS, "another output")]
)
def test_errors_say_what_to_do_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, remedy: str
) -> None:
    def replace(self: Path, target: Path) -> Any:
        raise OSError(code, "system's words", str(target))

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(OutputError, match=f"x.bin: cannot be written, .*{remedy}.*run again"):
        write_bytes(Location(str(tmp_path)) / "x.bin", b"x")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(OutputError, match=r"a/b\.bin: cannot be written"):
        write_bytes(Location(str(tmp_path)) / "a" / "b.bin", b"x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="a folder stands where the file should go"):
        write_bytes(Location(str(tmp_path)) / "folder", b"x")


def test_an_object_store_that_fails_is_an_output_error(memory: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("no such bucket")

    monkeypatch.setattr(type(memory.fs), "pipe_file", fail)
    with pytest.raises(OutputError, match="x: cannot be written, no such bucket"):
        write_bytes(memory / "x", b"")


def test_removing_is_quiet_about_what_is_gone(out: Location) -> None:
    write_bytes(out / "x", b"")
    remove(out / "x")
    remove(out / "x")
    remove(out / "no" / "folder")
    assert find_files(out) == []


def test_temporaries_are_swept_and_nothing_else(tmp_path: Path) -> None:
    out = Location(str(tmp_path))
    write_bytes(out / "masks" / "P" / "A01" / "1.png", b"x")
    for folder in ("", "masks/P/A01/", "nuclei/plate=P/"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / ".tmp-0123").write_bytes(b"half")
    (tmp_path / ".other").write_bytes(b"")
    assert sweep_temporaries(out) == 3
    assert sweep_temporaries(out) == 0
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [".other", "1.png"]
    assert sweep_temporaries(Location("memory://x")) == 0
