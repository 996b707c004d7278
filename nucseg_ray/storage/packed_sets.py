"""Packed training sets: some Parquet files, and ``packed.json``, which says what belongs to the set.

::

    packed.json              every part with its size, its SHA-256 and its images: written last
    part-00000.parquet ...   a row an image: pixels, labels, group, kind, fold
    packing.json             what is being packed, until it is done

A set is packed if and only if its ``packed.json`` stands, and each part is as it says.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from nucseg_ray.errors import InputError, MissingInputError, OutputError, OutputMismatchError
from nucseg_ray.storage.atomic import remove, sweep_temporaries, write_json
from nucseg_ray.storage.fetch import fetch_bytes
from nucseg_ray.storage.labelled_images import Part, Sample, TrainingSet, examples
from nucseg_ray.storage.listing import find_files
from nucseg_ray.storage.locations import Location

PACKED_JSON, PACKING_JSON = "packed.json", "packing.json"
FORMAT = 1
_PART = re.compile(r"part-\d{5,}\.parquet")
_AGAIN = "copy the whole folder again, or pack the set anew"


class _Image(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    image_id: str
    group: str
    kind: str
    fold: int | None


class _PackedPart(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    file: str
    size_bytes: int
    sha256: str
    rows: int
    images: list[_Image]


class _Packed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    format: int
    source: str
    parts: list[_PackedPart]


def part_name(number: int) -> str:
    """Give the file name of a part."""
    return f"part-{number:05d}.parquet"


def is_packed(files: Iterable[str]) -> bool:
    """Tell from its files whether a folder is a packed set, or was to become one."""
    return any(file in (PACKED_JSON, PACKING_JSON) or _PART.fullmatch(file) for file in files)


def read_packed(root: Location, sizes: Mapping[str, int]) -> TrainingSet:
    """Read what a packed set holds; ``sizes`` are those of the folder's files.

    That every part is there with its size is seen here, what is in it when it is read (:func:`open_part`).

    Raises
    ------
    InputError
        The set was not packed to the end, is of another format, or a part is missing or of another size.
    """
    if PACKED_JSON not in sizes:
        raise InputError(
            f"{root}: holds parts of a packed set and no {PACKED_JSON}, which is written last: it was not packed to "
            "the end, or not copied to the end; run the same pack command again, or copy the whole folder"
        )
    packed = _parse(root / PACKED_JSON)
    missing = [part.file for part in packed.parts if part.file not in sizes]
    if missing:
        raise InputError(
            f"{root}: {len(missing)} of the {len(packed.parts)} parts in {PACKED_JSON} are missing{examples(missing)}; "
            f"{_AGAIN}"
        )
    for part in packed.parts:
        if sizes[part.file] != part.size_bytes:
            raise InputError(
                f"{root / part.file}: expected {part.size_bytes} bytes, as {PACKED_JSON} says, found "
                f"{sizes[part.file]}; {_AGAIN}"
            )
    samples = [
        Sample(image.image_id, part.file, (), one_mask=True, group=image.group, kind=image.kind, fold=image.fold)
        for part in packed.parts
        for image in part.images
    ]
    return TrainingSet(
        root,
        f"packed, {len(packed.parts)} parts, from {packed.source}",
        tuple(sorted(samples, key=lambda sample: sample.image_id)),
        tuple(Part(part.file, part.size_bytes, part.sha256) for part in packed.parts),
    )


def open_part(root: Location, part: Part) -> pq.ParquetFile:
    """Fetch a part and check that it is as it was written; every row is a row group of its own.

    Raises
    ------
    InputError
        It cannot be read, or was altered.
    """
    data = fetch_bytes(root / part.name)
    if hashlib.sha256(data).hexdigest() != part.sha256:
        raise InputError(f"{root / part.name}: was altered since {PACKED_JSON} was written; {_AGAIN}")
    return pq.ParquetFile(pa.BufferReader(data))


def encode_part(tables: Iterable[pa.Table], schema: pa.Schema) -> bytes:
    """Write tables as one Parquet file (zstd), a row group a row, so that some rows can be read without the others."""
    sink = io.BytesIO()
    # Neither dictionaries nor least and greatest values make sense of pixels; both would cost time.
    with pq.ParquetWriter(sink, schema, compression="zstd", use_dictionary=False, write_statistics=False) as writer:
        for table in tables:
            writer.write_table(table, row_group_size=1)
    return sink.getvalue()


def fingerprint(training_set: TrainingSet, *, images_per_part: int) -> str:
    """Tell what is to be packed, and into which parts, from anything else."""
    told = {
        "root": training_set.root.uri,
        "samples": [[getattr(sample, name) for name in Sample.__slots__] for sample in training_set.samples],
        "parts": [part.sha256 for part in training_set.parts],
        "images_per_part": images_per_part,
    }
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def begin_packing(output: Location, packing: str) -> None:
    """Claim an output for what ``packing`` (a fingerprint) stands for: a new one, or what a kill left of it.

    Raises
    ------
    OutputError
        The output holds anything else, or a set that is packed already.
    """
    files = [name for name, _ in find_files(output)]
    if PACKED_JSON in files:
        raise OutputError(f"{output}: holds a packed set already; train from it, or name another --output")
    foreign = [name for name in files if name != PACKING_JSON and not _PART.fullmatch(name)]
    if foreign:
        raise OutputMismatchError(
            f"{output}: expected a new or empty output, found {len(foreign)} other files{examples(foreign)}; name "
            "another --output"
        )
    if files and _claimed_by(output) != packing:
        raise OutputMismatchError(
            f"{output}: holds the beginning of another packed set (other images, or other --images-per-part); delete "
            "it, or name another --output"
        )
    sweep_temporaries(output)
    write_json(output / PACKING_JSON, {"format": FORMAT, "packing": packing})


def finish_packing(output: Location, parts: Sequence[tuple[Part, Sequence[Sample]]], *, source: str) -> None:
    """Write ``packed.json``, which makes the set one: each part with its samples, in the order of its rows."""
    packed = _Packed(
        format=FORMAT,
        source=source,
        parts=[
            _PackedPart(
                file=part.name,
                size_bytes=part.size_bytes,
                sha256=part.sha256,
                rows=len(samples),
                images=[
                    _Image(image_id=each.image_id, group=each.group, kind=each.kind, fold=each.fold) for each in samples
                ],
            )
            for part, samples in parts
        ],
    )
    write_json(output / PACKED_JSON, packed.model_dump())
    remove(output / PACKING_JSON)


def abandon_packing(output: Location, parts: Iterable[str]) -> None:
    """Remove the parts of a set that cannot be packed, and the claim; what cannot be removed stays, and counts not."""
    with contextlib.suppress(OutputError):
        for name in (*parts, PACKING_JSON):
            remove(output / name)


def _parse(location: Location) -> _Packed:
    try:
        found = json.loads(fetch_bytes(location))
        version = found.get("format") if isinstance(found, dict) else None
        if isinstance(version, int) and version != FORMAT:
            raise InputError(f"{location}: expected format {FORMAT}, found {version}; pack the set anew")
        return _Packed.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"{location}: is damaged ({place}: {first['msg']}); {_AGAIN}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{location}: is damaged ({error}); {_AGAIN}") from error


def _claimed_by(output: Location) -> str | None:
    try:
        return str(json.loads(fetch_bytes(output / PACKING_JSON))["packing"])
    except (MissingInputError, ValueError, KeyError, TypeError):
        return None
