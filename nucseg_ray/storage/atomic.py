"""Writes that are there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nucseg_ray.errors import OutputError
from nucseg_ray.storage.locations import Location

_TEMPORARY = ".tmp-"

_REMEDIES = {
    errno.ENOSPC: "the disk is full: free space",
    errno.EDQUOT: "the quota is used up: free space",
    errno.EACCES: "no permission: change the folder's permissions or choose another output",
    errno.EPERM: "no permission: change the folder's permissions or choose another output",
    errno.EROFS: "the filesystem is read-only: choose another output",
    errno.ENAMETOOLONG: "the name is too long for this filesystem: choose a shorter output path",
    errno.ENOTDIR: "a file stands where a folder is needed: move it away or choose another output",
    errno.EISDIR: "a folder stands where the file should go: move it away or choose another output",
}


def write_bytes(location: Location, data: bytes | memoryview, *, durable: bool = False) -> None:
    """Write a file so that a reader, or a kill at any moment, finds the old file or the whole new one.

    Locally: a temporary file in the same folder (made where it is missing), then a rename. Elsewhere: one PUT, which
    object stores (S3, GCS, Azure) show only once it is complete.

    With ``durable`` the bytes also survive a power cut at once. It is off for masks: a killed process loses nothing
    that it wrote, one wait for the disk a mask would cost more than the mask, and masks can be made again. The tables
    that say what is done are durable.

    Raises
    ------
    OutputError
        If it cannot be written; says why and what to do. Nothing is left behind.
    """
    try:
        if location.is_local:
            _write_local(location.path, data, durable=durable)
        else:
            location.fs.pipe_file(location.path, bytes(data))
    except Exception as error:  # the stores' clients have no common class of error
        raise _output_error(location, error) from error


def write_table(location: Location, table: pa.Table) -> None:
    """Write a table as one Parquet file (zstd), atomic and durable; raises ``OutputError`` like ``write_bytes``."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    write_bytes(location, memoryview(sink.getvalue()), durable=True)


def write_json(location: Location, value: Any) -> None:
    """Write a value as indented UTF-8 JSON, atomic and durable; raises ``OutputError`` like ``write_bytes``.

    Raises
    ------
    ValueError
        For NaN and infinities, which are not JSON.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_bytes(location, (text + "\n").encode(), durable=True)


def remove(location: Location) -> None:
    """Remove a file; nothing happens where there is none.

    Raises
    ------
    OutputError
        If it is there and cannot be removed.
    """
    try:
        location.fs.rm_file(location.path)
    except (FileNotFoundError, NotADirectoryError):
        return
    except Exception as error:
        raise _output_error(location, error) from error


def sweep_temporaries(location: Location) -> int:
    """Remove the temporary files that killed writers left anywhere below a local folder; returns how many.

    A write that is under way below it fails, so call this only while nothing writes. Object stores have no such files.
    """
    if not location.is_local:
        return 0
    removed = 0
    for folder, _, names in os.walk(location.path):
        for name in names:
            if name.startswith(_TEMPORARY):
                with contextlib.suppress(FileNotFoundError):
                    (Path(folder) / name).unlink()
                    removed += 1
    return removed


def _write_local(path: str, data: bytes | memoryview, *, durable: bool) -> None:
    """Write beside the target and rename."""
    target = Path(path)
    folder = target.parent
    temporary = folder / f"{_TEMPORARY}{uuid.uuid4().hex}"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with temporary.open("xb") as stream:
            stream.write(data)
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        temporary.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    if durable:
        _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    """Make the rename durable too; some network filesystems do not offer it, and have their own order."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _output_error(location: Location, error: Exception) -> OutputError:
    """Say what could not be written, why, and what to do."""
    code = error.errno if isinstance(error, OSError) else None
    remedy = _REMEDIES.get(code or 0, f"{error}: check the path and the credentials")
    return OutputError(f"{location}: cannot be written, {remedy}, then run again; what is done stays done.")
