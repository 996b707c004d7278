"""What an output was made with: ``run.json``, ``manifest.parquet`` and ``diameters.json``, before the first site.

An output holds results of one model with one set of settings. A run that would mix in others is refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nucseg_ray.errors import MissingInputError, NamingError, OutputError, OutputMismatchError
from nucseg_ray.plates.manifest import Key, extend
from nucseg_ray.storage.atomic import write_json, write_table
from nucseg_ray.storage.fetch import fetch_bytes
from nucseg_ray.storage.locations import Location

# Of the settings that are recorded. Another version may know fewer, and sees images otherwise.
FORMAT = 2
RUN_JSON, MANIFEST_PARQUET, DIAMETERS_JSON = "run.json", "manifest.parquet", "diameters.json"
ILLUMINATION = "illumination"
# In this order an output is cleared: a site stops counting before it loses anything, and as long as anything is left
# run.json still says what made it.
TREE = ("sites", "nuclei", "masks", ILLUMINATION, "runs")
FILES = (DIAMETERS_JSON, MANIFEST_PARQUET, "latest_run.json", RUN_JSON)


def check_output(out: Location, decisive: Mapping[str, Any]) -> bool:
    """Check that an output was made with the same, or with nothing yet; tells whether it has its record.

    Raises
    ------
    OutputMismatchError
        It was made with something else; names what differs. Or it holds files of another kind.
    """
    stored = _read(out / RUN_JSON)
    if stored is None:
        _refuse_foreign(out)
        return False
    wanted = _made_with(decisive)
    made_with = stored.get("made_with", {})
    if made_with.get("format") != FORMAT:
        raise OutputMismatchError(
            f"{out}: was made by another version of nucseg_ray (format {made_with.get('format')!r}, this one's is "
            f"{FORMAT}); go on with that one, name another --output, or start it afresh with --overwrite"
        )
    different = sorted(name for name in {*wanted, *made_with} if wanted.get(name) != made_with.get(name))
    if different:
        told = "; ".join(f"{name}: {made_with.get(name)!r} there, {wanted.get(name)!r} asked for" for name in different)
        raise OutputMismatchError(
            f"{out}: was made with other settings ({told}); name another --output, or start it afresh with --overwrite"
        )
    return True


def claim_output(out: Location, decisive: Mapping[str, Any], *, settings: Mapping[str, Any]) -> None:
    """Record what the output is made with, where that is not recorded yet; raises like :func:`check_output`."""
    if not check_output(out, decisive):
        write_json(out / RUN_JSON, {"made_with": _made_with(decisive), "settings": dict(settings)})


def clear_output(out: Location) -> None:
    """Delete what an earlier run wrote, and nothing else."""
    for name in TREE:
        folder = out / name
        if folder.fs.exists(folder.path):
            folder.fs.rm(folder.path, recursive=True)
    for name in FILES:
        file = out / name
        if file.fs.exists(file.path):
            file.fs.rm_file(file.path)


def record_manifest(out: Location, planned: pa.Table, *, done: Collection[Key]) -> pa.Table:
    """Write the manifest, or extend the one that is there by the new sites; gives the whole.

    Raises
    ------
    OutputMismatchError
        A site that is done would now be read from other files.
    """
    try:
        before = pq.read_table(pa.BufferReader(fetch_bytes(out / MANIFEST_PARQUET)))
    except MissingInputError:
        write_table(out / MANIFEST_PARQUET, planned)
        return planned
    try:
        manifest = extend(before, planned, done=done)
    except NamingError as error:
        raise OutputMismatchError(f"{out}: {error}") from error
    if not manifest.equals(before):
        write_table(out / MANIFEST_PARQUET, manifest)
    return manifest


def read_diameters(out: Location) -> dict[str, float | None]:
    """Read the diameter of nuclei, in pixels, of each plate where it was found before; None: of each image by itself.

    Raises
    ------
    OutputError
        The record is not readable.
    """
    stored = _read(out / DIAMETERS_JSON) or {}
    for plate, diameter in stored.items():
        if diameter is not None and not (type(diameter) in (int, float) and 0 < diameter < math.inf):
            raise OutputError(
                f"{out / DIAMETERS_JSON}: expected the diameter of plate {plate} in pixels, or null, found "
                f"{diameter!r}; restore it, or start afresh with --overwrite"
            )
    return {plate: None if diameter is None else float(diameter) for plate, diameter in stored.items()}


def record_diameters(out: Location, diameters: Mapping[str, float | None]) -> None:
    """Write the diameter of nuclei of each plate; a rerun goes on with the same."""
    write_json(out / DIAMETERS_JSON, dict(diameters))


def _made_with(decisive: Mapping[str, Any]) -> dict[str, Any]:
    return {"format": FORMAT, **decisive}


def _read(file: Location) -> dict[str, Any] | None:
    try:
        stored = json.loads(fetch_bytes(file))
    except MissingInputError:
        return None
    except ValueError as error:
        raise OutputError(f"{file}: not readable as JSON; restore it, or start afresh with --overwrite") from error
    if not isinstance(stored, dict):
        raise OutputError(f"{file}: expected an object; restore it, or start afresh with --overwrite")
    return stored


def _refuse_foreign(out: Location) -> None:
    """Refuse a folder with results but without their record: nobody knows what they were made with."""
    for name in ("sites", "nuclei"):
        folder = out / name
        if folder.fs.exists(folder.path):
            raise OutputMismatchError(
                f"{out}: holds {name}/ but no {RUN_JSON}, so it is not known what made it; name another --output, or "
                "start it afresh with --overwrite"
            )
