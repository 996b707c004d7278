from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nucseg_ray.storage.atomic import write_table
from nucseg_ray.storage.fetch import fetch_bytes
from nucseg_ray.storage.locations import Location
from nucseg_ray.storage.schemas import KEY_FIELDS, MASKS, NUCLEI, SITES

TABLES = {"nuclei": NUCLEI, "sites": SITES, "masks": MASKS}


@pytest.mark.parametrize("schema", TABLES.values(), ids=TABLES)
def test_every_column_explains_itself_also_in_the_file(schema: pa.Schema, memory: Location) -> None:
    write_table(memory / "t.parquet", schema.empty_table())
    kept = pq.read_schema(pa.BufferReader(fetch_bytes(memory / "t.parquet")))
    assert kept.names[:4] == [field.name for field in KEY_FIELDS]
    for field in kept:
        assert field.metadata[b"description"], field.name
        pixels = any(word in field.name for word in ("_X", "_Y", "Area", "height", "width", "diameter"))
        assert (field.metadata.get(b"unit") == b"px") == pixels, field.name


def test_keys_are_text_and_only_the_time_point_may_lack() -> None:
    assert all(field.type == pa.string() for field in KEY_FIELDS)
    assert [field.nullable for field in KEY_FIELDS] == [False, False, False, True]
