"""The manifest: one row an image to segment, decided once, before any of them is read."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nucseg_ray.errors import NamingError
from nucseg_ray.plates.keys import SiteKey

Key = tuple[str, str, str, str | None]
"""The parts of a `SiteKey`, as they are in tables."""

MANIFEST = pa.schema(
    [
        pa.field("plate", pa.string(), nullable=False),
        pa.field("well", pa.string(), nullable=False),
        pa.field("site", pa.string(), nullable=False),
        pa.field("timepoint", pa.string()),
        pa.field("channel", pa.string(), nullable=False),
        pa.field("planes", pa.list_(pa.string()), nullable=False),
    ]
)
"""One row an image to segment: its key, the channel, and the files of its planes, lowest first."""


def extend(manifest: pa.Table, new: pa.Table, *, done: Collection[Key]) -> pa.Table:
    """Return the rows of `manifest` in their order, then the rows of `new` whose keys it does not have.

    Rows that `new` lacks stay, so that a rerun can never lose a site; those of sites that are not `done` are as `new`
    has them, since more of their files may have come. Raises `NamingError` where a site that is done is now to be read
    from other files: it would no longer be what the manifest says.
    """
    place = {key: row for row, (key, _, _) in enumerate(_rows(manifest))}
    known = {key: (channel, planes) for key, channel, planes in _rows(manifest)}
    rows = np.arange(manifest.num_rows)
    for row, (key, channel, planes) in enumerate(_rows(new)):
        if known.get(key, (channel, planes)) == (channel, planes):
            continue
        rows[place[key]] = manifest.num_rows + row
        if key in done:
            old_channel, old_planes = known[key]
            raise NamingError(
                f"site {SiteKey(*key)}: the manifest of the earlier run has channel {old_channel!r} from "
                f"{', '.join(old_planes)}, but now it is channel {channel!r} from {', '.join(planes)}. Restore the "
                "files and settings of the earlier run, or choose a new output."
            )
    return add_missing(pa.concat_tables([manifest, new]).take(rows), new)


def add_missing(manifest: pa.Table, new: pa.Table) -> pa.Table:
    """Return the rows of `manifest`, then the rows of `new` whose keys it does not have, whatever the others say."""
    known = {key for key, _, _ in _rows(manifest)}
    added = [index for index, (key, _, _) in enumerate(_rows(new)) if key not in known]
    return pa.concat_tables([manifest, new.take(pa.array(added, pa.int64()))])


def short_stacks(manifest: pa.Table) -> tuple[SiteKey, ...]:
    """Return the sites that have fewer planes than others of their plate."""
    plates = manifest["plate"].combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    counts = pc.list_value_length(manifest["planes"]).to_numpy()
    most = np.zeros(plates.max(initial=-1) + 1, np.int64)
    np.maximum.at(most, plates, counts)
    short = manifest.take(np.flatnonzero(counts < most[plates]))
    return tuple(SiteKey(*key) for key, _, _ in _rows(short))


def _rows(manifest: pa.Table) -> Iterable[tuple[Key, str, list[str]]]:
    plate, well, site, timepoint, channel, planes = (manifest[name].to_pylist() for name in MANIFEST.names)
    return zip(zip(plate, well, site, timepoint, strict=True), channel, planes, strict=True)
