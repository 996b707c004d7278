"""Arrays in and out of Arrow tables."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nucseg_ray.pipelines.rows import array_fields, pack, to_table, unpack

SCHEMA = pa.schema([pa.field("name", pa.string()), *array_fields("image"), *array_fields("mask")])
ARRAYS = st.none() | hnp.arrays(
    st.sampled_from([np.uint8, np.uint16, np.int32, np.int64, np.float32, np.float64, np.bool_, np.dtype(">u2")]),
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
)


def table_of(*arrays: np.ndarray | None) -> pa.Table:
    rows = [{"name": str(n), **pack("image", array), **pack("mask", None)} for n, array in enumerate(arrays)]
    return to_table(rows, SCHEMA)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(ARRAYS, ARRAYS), max_size=10))
def test_arrays_come_back(pairs: list[tuple[np.ndarray | None, np.ndarray | None]]) -> None:
    rows = [
        {"name": str(number), **pack("image", image), **pack("mask", mask)}
        for number, (image, mask) in enumerate(pairs)
    ]
    table = to_table(rows, SCHEMA)
    table.validate(full=True)
    assert table.schema == SCHEMA and table.num_rows == len(pairs)
    assert table.column("name").to_pylist() == [row["name"] for row in rows]
    for cut in (table, pa.concat_tables([table.slice(0, len(pairs) // 2), table.slice(len(pairs) // 2)])):
        for number, pair in enumerate(pairs):
            for column, array in zip(("image", "mask"), pair, strict=True):
                back = unpack(column, cut, number)
                if array is None:
                    assert back is None
                else:
                    assert back is not None
                    assert (back.dtype, back.shape) == (array.dtype, array.shape)
                    assert back.tobytes() == array.tobytes()  # NaN and -0.0 too


def test_8_and_16_bits_grey_and_rgb_stand_side_by_side() -> None:
    grey, rgb = np.full((2, 3), 300, np.uint16), np.full((4, 5, 3), 7, np.uint8)
    table = table_of(grey, rgb)
    assert [unpack("image", table, row).dtype for row in (0, 1)] == [np.uint16, np.uint8]  # type: ignore[union-attr]
    assert [unpack("image", table, row).shape for row in (0, 1)] == [(2, 3), (4, 5, 3)]  # type: ignore[union-attr]


def test_arrays_that_are_not_contiguous_keep_their_order() -> None:
    array = np.arange(24, dtype=np.int32).reshape(4, 6)[::-1, ::2].T
    np.testing.assert_array_equal(unpack("image", table_of(array), 0), array)


def test_what_is_unpacked_is_aligned_and_the_callers_own() -> None:
    table = table_of(np.arange(5, dtype=np.uint8), None, np.arange(1000, dtype=np.int32))
    array = unpack("image", table, 2)
    assert array is not None
    assert array.flags.aligned and array.flags.c_contiguous
    array[:] = -1
    np.testing.assert_array_equal(unpack("image", table, 2), np.arange(1000))


def test_arrays_survive_arrows_own_format() -> None:
    array = np.arange(12, dtype=np.uint16).reshape(3, 4)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SCHEMA) as writer:
        writer.write_table(table_of(None, array))
    back = pa.ipc.open_stream(sink.getvalue()).read_all()
    assert unpack("image", back, 0) is None
    np.testing.assert_array_equal(unpack("image", back, 1), array)
