"""Blocks of made-up sites, and empty outputs on a local disk and in an object store."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest

from nucseg_ray.storage.ledger import PartTables
from nucseg_ray.storage.locations import Location
from nucseg_ray.storage.schemas import KEY_NAMES, MASKS, NUCLEI, SITES

Key = tuple[str, str, str, str | None]
MakeBlock = Callable[[str, Mapping[Key, int | None]], PartTables]


def block(plate: str, nuclei_of: Mapping[Key, int | None]) -> PartTables:
    """Make the tables of a block: the number of nuclei of each key, None for a failed site."""
    sites, nuclei, masks = [], [], []
    for key, count in nuclei_of.items():
        columns = dict(zip(KEY_NAMES, key, strict=True))
        outcome = "failed" if count is None else "segmented" if count else "empty"
        reason = "it broke" if count is None else None
        sites.append(
            columns | dict.fromkeys(SITES.names[4:]) | {"outcome": outcome, "n_nuclei": count, "reason": reason}
        )
        if count is not None:
            masks.append(columns | {"png": f"mask of {key}".encode(), "n_nuclei": count})
        for number in range(1, (count or 0) + 1):
            nuclei.append(columns | dict.fromkeys(NUCLEI.names[4:], 1) | {"ObjectNumber": number})
    return PartTables(
        plate=plate,
        nuclei=pa.Table.from_pylist(nuclei, schema=NUCLEI),
        masks=pa.Table.from_pylist(masks, schema=MASKS),
        sites=pa.Table.from_pylist(sites, schema=SITES),
    )


@pytest.fixture(scope="session")
def make_block() -> MakeBlock:
    return block


@pytest.fixture
def memory() -> Iterator[Location]:
    """Give an empty place in fsspec's object store in memory."""
    name = uuid.uuid4().hex
    yield Location(f"memory://{name}")
    store = fsspec.filesystem("memory").store
    for path in [path for path in store if path.startswith(f"/{name}")]:
        del store[path]


@pytest.fixture(params=["local", "memory"])
def out(request: pytest.FixtureRequest, tmp_path: Path, memory: Location) -> Location:
    return Location(str(tmp_path / "out")) if request.param == "local" else memory / "out"
