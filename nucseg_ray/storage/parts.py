"""The part files of an output: their names, where they lie, listing, reading and removing them.

A part holds some sites of one plate. Its three files share one stem::

    nuclei/plate=<plate>/part-<run>-<hash>.parquet
    masks/plate=<plate>/part-<run>-<hash>.parquet
    sites/plate=<plate>/part-<run>-<hash>.parquet     the ledger; failed sites: failed-<run>-<hash>.parquet

What makes a part count is the business of ``ledger``.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from nucseg_ray.errors import InputError, OutputError, UsageError
from nucseg_ray.storage.atomic import remove
from nucseg_ray.storage.fetch import fetch_many
from nucseg_ray.storage.listing import find_files, list_folders
from nucseg_ray.storage.locations import Location
from nucseg_ray.storage.schemas import KEY_NAMES, MASKS, NUCLEI, SITES

# In this order they are removed: a part stops counting before it loses anything.
FAILED = "failed-"  # begins the names of the parts that hold failed sites
TABLES: Mapping[str, pa.Schema] = {"sites": SITES, "nuclei": NUCLEI, "masks": MASKS}

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_STEM = re.compile(r"(part|failed)-(?P<run>[A-Za-z0-9][A-Za-z0-9_.-]{0,63})-[0-9a-f]{16}")
_LISTING_THREADS = 16


def new_run_id() -> str:
    """Make the name of a run: the time (UTC) for people, and chance so that two never share it."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"


def check_run_id(run_id: str) -> None:
    """Check that a run's name can stand in a file name.

    Raises
    ------
    UsageError
        If it cannot.
    """
    if not _RUN_ID.fullmatch(run_id):
        raise UsageError(
            f"Run id {run_id!r}: expected 1 to 64 letters, digits, '.', '_' or '-', a letter or digit first."
        )


def part_name(run_id: str, keys: pa.Table) -> str:
    """Return the stem of the part that holds the sites of ``keys`` (a table with the key columns).

    Neither the order of the rows nor other columns matter. Keys compare as text, so "1" and "01" differ.
    """
    check_run_id(run_id)
    rows = sorted(json.dumps(key) for key in key_rows(keys))
    return f"part-{run_id}-{hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]}"


def failed_name(stem: str) -> str:
    """Return the stem that holds the failed sites of the block whose other sites are in ``stem``."""
    return FAILED + stem.removeprefix("part-")


def run_of(stem: str) -> str:
    """Return the run that wrote a part."""
    found = _STEM.fullmatch(stem)
    if not found:
        raise UsageError(f"{stem!r}: expected the stem of a part, part-<run>-<16 hex digits>.")
    return found["run"]


def part_location(out: Location, table: str, plate: str, stem: str) -> Location:
    """Return the file of one part; ``table`` is "sites", "nuclei" or "masks"."""
    return out / table / f"plate={quote(plate, safe='')}" / f"{stem}.parquet"


def key_rows(table: pa.Table) -> list[tuple[str | None, ...]]:
    """Return the keys of a table as tuples of text, in the table's order."""
    return list(zip(*(table.column(name).to_pylist() for name in KEY_NAMES), strict=True))


def list_parts(out: Location, table: str) -> dict[str, str]:
    """List the parts of one table as stem -> path relative to ``out``, sorted, fresh.

    Looks into the ``plate=`` folders only, not among the millions of PNG files that may lie beside them.
    """
    folders = [name for name in list_folders(out / table) if name.startswith("plate=")]
    with ThreadPoolExecutor(max_workers=_LISTING_THREADS, thread_name_prefix="list") as pool:
        listings = pool.map(find_files, [out / table / folder for folder in folders])
        found = {
            name.removesuffix(".parquet"): f"{table}/{folder}/{name}"
            for folder, files in zip(folders, listings, strict=True)
            for name, _ in files
        }
    return {stem: path for stem, path in sorted(found.items()) if _STEM.fullmatch(stem) and path.endswith(".parquet")}


def read_parts(
    out: Location, table: str, stems: Collection[str] | None, *, columns: Sequence[str] | None = None
) -> pa.Table:
    """Read parts as one table, in the order of their stems; ``stems`` None reads all, ``columns`` None all columns.

    Pass the committed stems: parts of a broken-off or running run may lie beside them. A stem without a file in
    this table is left out (failed sites have no nuclei).

    Raises
    ------
    OutputError
        If a part cannot be read; says how to have its sites done again.
    """
    wanted = list(columns) if columns is not None else TABLES[table].names
    schema = pa.schema([TABLES[table].field(name) for name in wanted])
    tables = [part for _, part in iterate_parts(out, table, stems, columns=wanted)]
    return pa.concat_tables(tables).cast(schema) if tables else schema.empty_table()


def iterate_parts(
    out: Location, table: str, stems: Collection[str] | None, *, columns: Sequence[str]
) -> Iterator[tuple[str, pa.Table]]:
    """Yield (path relative to ``out``, table) part by part, reading ahead; else like ``read_parts``."""
    standing = list_parts(out, table)
    paths = [path for stem, path in standing.items() if stems is None or stem in stems]
    for path, data in zip(paths, fetch_many(out, paths), strict=True):
        if isinstance(data, InputError):
            raise OutputError(str(data)) from data
        try:
            yield path, pq.ParquetFile(pa.BufferReader(data)).read(columns=list(columns))
        except (pa.ArrowException, OSError) as error:
            sites = f"sites/{path.split('/', 1)[1]}"
            raise OutputError(
                f"{out / path}: expected a Parquet file, could not read it ({error}). Delete {out / sites} "
                "and run again: its sites are done anew."
            ) from error


def remove_parts(out: Location, *, keep: Collection[str]) -> int:
    """Remove every file of every part that is not in ``keep``; returns how many files.

    A kill in the middle is harmless: the ``sites`` files go first, and a part without one does not count.
    """
    removed = 0
    for table in TABLES:
        for stem, path in list_parts(out, table).items():
            if stem not in keep:
                remove(out / path)
                removed += 1
    return removed
