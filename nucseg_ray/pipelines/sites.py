"""What happens to a site on its way through a run: read it, and after the network label, measure and commit it.

Bad input is a row: whatever goes wrong with one site is caught here and becomes its outcome. Only an output that cannot
be written ends the run, and that too travels as a value, since Ray would wrap the exception and lose its type.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from operator import itemgetter
from typing import Any, Literal

import pyarrow as pa
from numpy.typing import NDArray

from nucseg_ray.errors import ChoiceError, DecodeError, InputError, NucsegError
from nucseg_ray.imaging.codecs import encode_label_png
from nucseg_ray.imaging.labelling import Labelling
from nucseg_ray.imaging.measure import measure
from nucseg_ray.pipelines.rows import array_fields, pack, to_table, unpack
from nucseg_ray.pipelines.site_image import Reading, look_of, read_site
from nucseg_ray.plates.keys import SiteKey
from nucseg_ray.storage.atomic import remove, write_bytes
from nucseg_ray.storage.blocks import PartTables
from nucseg_ray.storage.fetch import fetch_many
from nucseg_ray.storage.ledger import commit_part
from nucseg_ray.storage.locations import Location
from nucseg_ray.storage.schemas import KEY_FIELDS, KEY_NAMES, MASKS, NUCLEI, SITES

MaskFormat = Literal["png", "parquet", "both", "none"]
READ_SCHEMA = pa.schema(
    [
        *KEY_FIELDS,
        pa.field("file", pa.string()),
        *array_fields("image"),
        pa.field("pixel_size_um", pa.float64()),
        pa.field("stage", pa.string()),
        pa.field("error", pa.string()),
        pa.field("retryable", pa.bool_()),
        pa.field("seconds", pa.float64()),
    ]
)
COMMITTED_SCHEMA = pa.schema(
    [
        *(pa.field(outcome, pa.int64()) for outcome in ("segmented", "empty", "failed")),
        pa.field("n_nuclei", pa.int64()),
        pa.field("plate", pa.string()),
        pa.field("looks", pa.map_(pa.string(), pa.string())),
        pa.field("output_error", pa.string()),
    ]
)

# The stage of a failure that settings mend, or another way to export the files; none of these is damaged.
CHOICE = "choose"
# What is known of a site before it is finished, beside its arrays.
_KNOWN = (*KEY_NAMES, "pixel_size_um", "stage", "error", "retryable", "seconds", "scale", "diameter_px")


@dataclass(frozen=True, slots=True)
class Sink:
    """Where a run's results go, and in which form."""

    out: Location
    run_id: str
    masks: MaskFormat


@dataclass(frozen=True, slots=True)
class _Site:
    """One site's row of the ledger, with its labels and nuclei where it did not fail."""

    row: dict[str, Any]
    mask_png: bytes | None = None
    nuclei: Mapping[str, NDArray[Any]] | None = None


def read_batch(manifest: pa.Table, *, reading: Reading) -> pa.Table:
    """Read the images of some rows of the manifest; files are fetched ahead, a few at a time, across sites."""
    # Time points of one file come one after another: it is fetched once.
    sites = [(planes, list(rows)) for planes, rows in groupby(manifest.to_pylist(), key=itemgetter("planes"))]
    fetched = fetch_many(reading.root, [plane for planes, _ in sites for plane in planes])
    read = []
    for planes, rows in sites:
        own = islice(fetched, len(planes))
        files = own if len(rows) == 1 else list(own)
        read += [_read_site(row, files, reading) for row in rows]
        deque(own, maxlen=0)  # what is left of a site that failed half-way
    return to_table(read, READ_SCHEMA)


def finish_batch(table: pa.Table, *, labelling: Labelling, sink: Sink) -> pa.Table:
    """Label, measure and commit the sites of one block, all of one plate; gives one row of counts.

    Its ``looks`` are the sizes and types that images of the plate have, each with the first file of it.
    """
    sites = [_finish_site(table, row, labelling=labelling) for row in range(table.num_rows)]
    output_error = None
    try:
        _write(sites, sink)
    except NucsegError as error:  # a part that cannot be read back is an InputError
        output_error = str(error)
    outcomes = [site.row["outcome"] for site in sites]
    counts = {name: outcomes.count(name) for name in ("segmented", "empty", "failed")}
    nuclei = sum(site.row["n_nuclei"] or 0 for site in sites)
    plate = sites[0].row["Metadata_Plate"]
    row = {**counts, "n_nuclei": nuclei, "plate": plate, "looks": list(_looks(table).items())}
    return pa.Table.from_pylist([{**row, "output_error": output_error}], COMMITTED_SCHEMA)


def _looks(table: pa.Table) -> dict[str, str]:
    looks: dict[str, str] = {}
    columns = (table.column(name).to_pylist() for name in ("image_shape", "image_dtype", "file"))
    for shape, dtype, file in zip(*columns, strict=True):
        if shape is not None:
            looks.setdefault(look_of(shape, dtype), file)
    return looks


def _read_site(row: Mapping[str, Any], files: Iterable[bytes | InputError], reading: Reading) -> dict[str, Any]:
    began = time.monotonic()
    image, pixel_size, stage, problem = None, None, None, None
    try:
        found = read_site(row, files, reading)
        image, pixel_size = found.pixels, found.pixel_size_um
    except DecodeError as error:
        stage, problem = "decode", str(error)
    except ChoiceError as error:
        stage, problem = CHOICE, str(error)
    except InputError as error:
        stage, problem = "read", str(error)
    except Exception as error:  # a codec may raise anything for damaged bytes; it must not take its block along
        stage, problem = "decode", f"{row['planes'][0]}: {type(error).__name__}: {error}"
    return {
        "Metadata_Plate": row["plate"],
        "Metadata_Well": row["well"],
        "Metadata_Site": row["site"],
        "Metadata_Timepoint": row["timepoint"],
        "file": row["planes"][0],
        **pack("image", image),
        "pixel_size_um": pixel_size,
        "stage": stage,
        "error": problem,
        # What could not be fetched may be there again; what cannot be decoded stays so.
        "retryable": stage == "read" if stage else None,
        "seconds": time.monotonic() - began,
    }


def _finish_site(table: pa.Table, row: int, *, labelling: Labelling) -> _Site:
    began = time.monotonic()
    known = {name: table.column(name)[row].as_py() for name in _KNOWN}
    image, maps = unpack("image", table, row), unpack("maps", table, row)
    failure: dict[str, Any] = {"stage": known["stage"], "reason": known["error"], "retryable": known["retryable"]}
    png, nuclei = None, None
    if image is not None and maps is None:
        failure = {"stage": "predict", "reason": known["error"], "retryable": True}
    elif image is not None and maps is not None:
        try:
            labels = labelling.label(maps, scale=known["scale"])
            png, nuclei = encode_label_png(labels), measure(labels, image)
        except Exception as error:  # one odd site must not take its block along
            failure = {"stage": "label", "reason": f"{type(error).__name__}: {error}", "retryable": False}
    n_nuclei = None if nuclei is None else len(nuclei["ObjectNumber"])
    ledger_row = {
        **{name: known[name] for name in KEY_NAMES},
        "outcome": "failed" if n_nuclei is None else "segmented" if n_nuclei else "empty",
        "n_nuclei": n_nuclei,
        "height": None if image is None else image.shape[0],
        "width": None if image is None else image.shape[1],
        "diameter_px": known["diameter_px"],
        "pixel_size_um": known["pixel_size_um"],
        **failure,
        "seconds": known["seconds"] + time.monotonic() - began,
    }
    return _Site(ledger_row, png, nuclei)


def _write(sites: Sequence[_Site], sink: Sink) -> None:
    """Write the PNG masks, then the tables; the ledger's part comes last and makes it all count."""
    done = [site for site in sites if site.mask_png is not None]
    if sink.masks in ("png", "both"):
        for site in sites:
            path = sink.out / "masks" / SiteKey(*(site.row[name] for name in KEY_NAMES)).path(".png")
            if site.mask_png is not None:
                write_bytes(path, site.mask_png)
            else:
                remove(path)  # of an attempt that was broken off before it counted
    masks = None
    if sink.masks in ("parquet", "both"):
        rows = [{**_key(site), "png": site.mask_png, "n_nuclei": site.row["n_nuclei"]} for site in done]
        masks = pa.Table.from_pylist(rows, schema=MASKS)
    tables = PartTables(
        plate=sites[0].row["Metadata_Plate"],
        nuclei=_nuclei_table(done),
        masks=masks,
        sites=pa.Table.from_pylist([site.row for site in sites], schema=SITES),
    )
    commit_part(sink.out, sink.run_id, tables)


def _key(site: _Site) -> dict[str, Any]:
    return {name: site.row[name] for name in KEY_NAMES}


def _nuclei_table(sites: Sequence[_Site]) -> pa.Table:
    parts = [NUCLEI.empty_table()]
    for site in sites:
        if site.nuclei is None or not site.row["n_nuclei"]:
            continue
        keys = {name: pa.array([site.row[name]] * site.row["n_nuclei"], pa.string()) for name in KEY_NAMES}
        parts.append(pa.table({**keys, **dict(site.nuclei)}).select(NUCLEI.names).cast(NUCLEI))
    return pa.concat_tables(parts)
