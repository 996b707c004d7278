"""The manifest: one row an image to segment, decided once, before any of them is read."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from nucseg_ray.errors import NamingError
from nucseg_ray.plates.keys import SiteKey

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


def extend(manifest: pa.Table, new: pa.Table) -> pa.Table:
    """Return the rows of `manifest` in their order, then the rows of `new` whose keys it does not have.

    Rows that `new` lacks stay, so that a rerun can never lose a site. Raises `NamingError` where a site is now to be
    read from other files, since what was done before would no longer be what the manifest says.
    """
    known = {key: (channel, planes) for key, channel, planes in _rows(manifest)}
    for key, channel, planes in _rows(new):
        if known.get(key, (channel, planes)) != (channel, planes):
            old_channel, old_planes = known[key]
            raise NamingError(
                f"site {SiteKey(*key)}: the manifest of the earlier run has channel {old_channel!r} from "
                f"{', '.join(old_planes)}, but now it is channel {channel!r} from {', '.join(planes)}. Restore the "
                "files and settings of the earlier run, or choose a new output."
            )
    return add_missing(manifest, new)


def add_missing(manifest: pa.Table, new: pa.Table) -> pa.Table:
    """Return the rows of `manifest`, then the rows of `new` whose keys it does not have, whatever the others say."""
    known = {key for key, _, _ in _rows(manifest)}
    added = [index for index, (key, _, _) in enumerate(_rows(new)) if key not in known]
    return pa.concat_tables([manifest, new.take(pa.array(added, pa.int64()))])


def _rows(manifest: pa.Table) -> Iterable[tuple[tuple[str, str, str, str | None], str, list[str]]]:
    plate, well, site, timepoint, channel, planes = (manifest[name].to_pylist() for name in MANIFEST.names)
    return zip(zip(plate, well, site, timepoint, strict=True), channel, planes, strict=True)
