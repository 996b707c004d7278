"""The ledger of an output: which sites are done, kept so that nothing is lost and nothing is there twice.

The rules, and what each is for:

- A part is **committed if and only if its** ``sites/`` **file stands**. It is written last, and atomically, so a kill
  at any moment leaves nothing that counts; it is removed first.
- A part's name is made of the run and of all keys of its block, failed or not. So a task that is run again in the same
  run finds what its first attempt committed, or writes over what it left.
- Block boundaries move between runs. So a run begins with a record of the parts that it accepts from before and
  removes all others; pending is the manifest minus the keys of the accepted ones.
- ``latest_run.json`` names the run that may commit. A task that outlived its killed driver finds another name there and
  gives up; should it slip through between looking and writing, its part is neither accepted nor of the latest run: it
  does not count (``committed_stems``), and the sweep at the end, or the next beginning, removes it.

One thing is left to the caller: two attempts of one task that are alive *at the same time* must come to the same
outcomes. (Attempts one after the other may differ.)
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nucseg_ray.errors import InputError, MissingInputError, OutputBusyError, OutputError, UsageError
from nucseg_ray.storage.atomic import remove, sweep_temporaries, write_json, write_table
from nucseg_ray.storage.blocks import PartTables, check_block
from nucseg_ray.storage.fetch import fetch_bytes
from nucseg_ray.storage.locations import Location
from nucseg_ray.storage.parts import (
    FAILED,
    TABLES,
    check_run_id,
    failed_name,
    iterate_parts,
    key_rows,
    list_parts,
    part_location,
    part_name,
    read_parts,
    remove_parts,
    run_of,
)
from nucseg_ray.storage.schemas import KEY_FIELDS, KEY_NAMES, OUTCOMES

_LATEST = "latest_run.json"
_COMPARED = [*KEY_NAMES, "outcome", "n_nuclei"]


def begin_run(out: Location, run_id: str, accepted: Collection[str]) -> None:
    """Begin a run that counts the parts ``accepted`` as done; from here on only this run may commit.

    Removes every other part and all temporary files. Call it under the lease, before the first task. ``accepted`` is
    ``committed_stems(out)``, or nothing to begin anew.

    Raises
    ------
    UsageError
        If the run id is malformed or was used before, or an accepted part does not stand.
    """
    check_run_id(run_id)
    record = out / "runs" / f"{run_id}.json"
    if _read_json(record) is not None:
        raise UsageError(f"Run id {run_id!r} was used before: {record} exists. Take a new one for every run.")
    absent = set(accepted) - set(list_parts(out, "sites"))
    if absent:
        raise UsageError(f"{out}: accepted parts were expected to stand in sites/, not found: {sorted(absent)[:3]}.")
    began = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(record, {"run_id": run_id, "began": began, "accepted": sorted(accepted)})
    write_json(out / _LATEST, {"run_id": run_id})  # the moment at which the run before loses its right to commit
    _clean(out, keep=frozenset(accepted))


def committed_stems(out: Location) -> frozenset[str]:
    """Return the parts that count: their ``sites/`` file stands, and the latest run wrote or accepted them.

    Works at any time, also on the output of a broken-off run and while one is going on.

    Raises
    ------
    OutputError
        If the latest run's record is gone.
    """
    standing = frozenset(list_parts(out, "sites"))
    latest = _read_json(out / _LATEST)
    if latest is None:
        return standing
    record = _read_json(out / "runs" / f"{latest['run_id']}.json")
    if record is None:
        raise OutputError(
            f"{out}/runs/{latest['run_id']}.json: expected the record of the latest run, found none. Restore it, or "
            f"delete {out / _LATEST} to count every part that stands."
        )
    accepted = frozenset(record["accepted"])
    return frozenset(stem for stem in standing if stem in accepted or run_of(stem) == latest["run_id"])


def commit_part(out: Location, run_id: str, tables: PartTables) -> tuple[str, ...]:
    """Write a block's tables so that all its sites become done; returns the committed stems, failed sites' last.

    Give it all sites of a task's block (of one plate) in one call, failed ones too. Files that belong to the sites (PNG
    masks) must be written before. It lists nothing: a few small reads and up to four writes.

    Raises
    ------
    UsageError
        If the tables contradict each other or the schemas.
    OutputBusyError
        If another run has begun since: this one's tasks must stop.
    OutputError
        If a file cannot be written.
    """
    checked = check_block(tables)
    stem = part_name(run_id, checked.sites)
    failed = pc.equal(checked.sites.column("outcome"), "failed")
    rows = {stem: checked.sites.filter(pc.invert(failed)), failed_name(stem): checked.sites.filter(failed)}
    places = {name: part_location(out, "sites", checked.plate, name) for name in rows}
    standing = {name: _outcomes_at(place) for name, place in places.items()}
    wanted = {name: _outcomes(table) if table.num_rows else None for name, table in rows.items()}
    stems = tuple(name for name, outcomes in wanted.items() if outcomes is not None)

    _check_latest(out, run_id)
    for name, place in places.items():
        # An attempt before this one came to other outcomes: it must not count while its files are written over.
        if standing[name] is not None and standing[name] != wanted[name]:
            remove(place)
    pending = [name for name in stems if standing[name] != wanted[name]]
    if stem in pending:
        if checked.masks is not None:
            write_table(part_location(out, "masks", checked.plate, stem), checked.masks)
        write_table(part_location(out, "nuclei", checked.plate, stem), checked.nuclei)
    for name in pending:
        _check_latest(out, run_id)
        write_table(places[name], rows[name])
    return stems


def done_keys(out: Location, accepted: Collection[str]) -> pa.Table:
    """Return the keys of the sites in the accepted parts, one row a site (the key columns).

    Raises
    ------
    OutputError
        If an accepted part is gone or unreadable, or a site stands twice; says what to delete.
    """
    absent = set(accepted) - set(list_parts(out, "sites"))
    if absent:
        raise OutputError(f"{out}/sites: accepted parts are gone: {sorted(absent)[:3]}. Run again.")
    return _site_rows(out, accepted).select(list(KEY_NAMES))


def outcome_counts(out: Location, *, among: Collection[tuple[Any, ...]] | None = None) -> dict[str, int]:
    """Count the sites that are done by outcome: segmented, empty, failed; raises like ``done_keys``.

    ``among`` are the keys to count, as tuples in the order of the key columns; without it all count.
    """
    rows = _site_rows(out, committed_stems(out))
    keys = zip(*(rows.column(name).to_pylist() for name in KEY_NAMES), strict=True)
    outcomes = zip(keys, rows.column("outcome").to_pylist(), strict=True)
    counts = Counter(outcome for key, outcome in outcomes if among is None or key in among)
    return {outcome: counts[outcome] for outcome in OUTCOMES}


def failure_reasons(out: Location) -> list[str]:
    """Give the reason of each failed site, in the order of the parts; raises like ``done_keys``."""
    stems = {stem for stem in committed_stems(out) if stem.startswith(FAILED)}
    return [str(reason) for reason in read_parts(out, "sites", stems, columns=["reason"]).column("reason").to_pylist()]


def drop_failed(out: Location) -> int:
    """Make failed sites pending again; returns how many parts were dropped. Call it under the lease, before a run."""
    stems = [stem for stem in list_parts(out, "sites") if stem.startswith(FAILED)]
    remove_parts(out, keep=set(list_parts(out, "sites")) - set(stems))
    return len(stems)


def sweep(out: Location, run_id: str, accepted: Collection[str]) -> int:
    """End a run: remove every part that is neither accepted nor committed by it; returns how many files.

    Call it once no task of the run is alive.
    """
    own = {stem for stem in list_parts(out, "sites") if run_of(stem) == run_id}
    return _clean(out, keep=own | set(accepted))


def _clean(out: Location, *, keep: Collection[str]) -> int:
    """Remove all other parts, and what killed writers left."""
    return remove_parts(out, keep=keep) + sweep_temporaries(out)


def _check_latest(out: Location, run_id: str) -> None:
    """Check that the run may still commit."""
    latest = _read_json(out / _LATEST)
    if latest is None:
        raise UsageError(f"{out}: run {run_id} was expected to have begun, found no {_LATEST}. Call begin_run first.")
    if latest["run_id"] != run_id:
        raise OutputBusyError(
            f"{out}: run {run_id} was superseded by run {latest['run_id']}, which does its open sites. Stop this one."
        )


def _outcomes(sites: pa.Table) -> list[dict[str, Any]]:
    """Return what an attempt came to, comparable with another attempt."""
    rows: list[dict[str, Any]] = sites.select(_COMPARED).to_pylist()
    return sorted(rows, key=lambda row: json.dumps(row, sort_keys=True))


def _outcomes_at(place: Location) -> list[dict[str, Any]] | None:
    """Return what the attempt before came to; None where it committed nothing that can be read."""
    try:
        data = fetch_bytes(place)
    except MissingInputError:
        return None
    try:
        return _outcomes(pq.ParquetFile(pa.BufferReader(data)).read(columns=_COMPARED))
    except (pa.ArrowException, OSError):
        return []  # differs from whatever this attempt came to


def _read_json(location: Location) -> Any:
    """Read a JSON file of the ledger; None where there is none."""
    try:
        return json.loads(fetch_bytes(location))
    except MissingInputError:
        return None
    except ValueError as error:
        if isinstance(error, InputError):
            raise OutputError(str(error)) from error
        raise OutputError(f"{location}: expected JSON, found something else ({error}). Restore the file.") from error


def _site_rows(out: Location, stems: Collection[str]) -> pa.Table:
    """Read keys and outcomes of some parts, and check that no site stands in two of them."""
    columns = [*KEY_NAMES, "outcome"]
    schema = pa.schema([*KEY_FIELDS, TABLES["sites"].field("outcome")])
    parts = dict(iterate_parts(out, "sites", stems, columns=columns))
    rows = pa.concat_tables(parts.values()).cast(schema) if parts else schema.empty_table()
    counts = rows.group_by(list(KEY_NAMES)).aggregate([([], "count_all")])
    twice = key_rows(counts.filter(pc.greater(counts.column("count_all"), 1)))
    if twice:
        holders = [path for path, part in parts.items() if twice[0] in key_rows(part)]
        raise OutputError(
            f"{out}: site {twice[0]} was expected once, it stands in {' and in '.join(holders)}. Delete all but one of "
            "these files and run again: what only they held is done anew."
        )
    return rows
