"""How arrays cross Ray: as bytes with their shape and dtype.

Not as tensor columns: within one block Arrow would widen an 8-bit image that stands beside a 16-bit one, and refuse
grey beside RGB.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def array_fields(name: str) -> list[pa.Field]:
    """Give the Arrow fields of an array column; all are null where a row has no array."""
    return [
        pa.field(name, pa.large_binary()),
        pa.field(f"{name}_shape", pa.list_(pa.int32())),
        pa.field(f"{name}_dtype", pa.string()),
    ]


def pack(name: str, array: NDArray[np.generic] | None) -> dict[str, Any]:
    """Turn an array (or none) into the values of its three columns."""
    if array is None:
        return {name: None, f"{name}_shape": None, f"{name}_dtype": None}
    return {
        name: pa.py_buffer(np.ascontiguousarray(array)),
        f"{name}_shape": list(array.shape),
        f"{name}_dtype": str(array.dtype),
    }


def unpack(name: str, table: pa.Table, row: int) -> NDArray[Any] | None:
    """Get an array back, the caller's own; None where the row has none.

    Arrow copies the bytes of this one value, which aligns them: what lies in a column begins at any byte.
    """
    value = table.column(name)[row]
    if not value.is_valid:
        return None
    shape = table.column(f"{name}_shape")[row].as_py()
    dtype = np.dtype(table.column(f"{name}_dtype")[row].as_py())
    return np.frombuffer(value.as_buffer(), dtype).reshape(shape)


def to_table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Make a table of rows with buffers in their binary columns."""
    columns = []
    for field in schema:
        values = [row[field.name] for row in rows]
        if pa.types.is_large_binary(field.type):
            columns.append(_binary_column(values))
        else:
            columns.append(pa.array(values, field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def _binary_column(buffers: Sequence[Any]) -> pa.Array:
    """Join buffers into one column with a single copy of their bytes."""
    sizes = [0 if buffer is None else len(memoryview(buffer)) for buffer in buffers]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    joined = np.empty(int(offsets[-1]), np.uint8)
    for buffer, start, stop in zip(buffers, offsets, offsets[1:], strict=False):
        if buffer is not None:
            joined[start:stop] = np.frombuffer(buffer, np.uint8)
    valid = np.packbits(np.array([buffer is not None for buffer in buffers], bool), bitorder="little")
    parts = [pa.py_buffer(valid), pa.py_buffer(offsets), pa.py_buffer(joined)]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(buffers), parts)
