"""Tables that people write about their images, as CSV or Parquet: rows of text, each with its place for messages."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nucseg_ray.errors import InputError


@dataclass(frozen=True, slots=True)
class TextTable:
    """A table of text: ``rows`` are (where it stands, such as "line 7"; the value of each column, "" for none)."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, dict[str, str]], ...]

    def first_of(self, names: Sequence[str]) -> str | None:
        """Give the first of some names that is a column."""
        return next((name for name in names if name in self.columns), None)


def read_csv(data: bytes, *, name: str) -> TextTable:
    """Read a CSV in UTF-8, with or without a byte-order mark; blank lines are left out.

    Raises
    ------
    InputError
        It is no CSV, or a row has more or fewer values than there are columns: a name with a comma and without quotes
        would else shift every value after it.
    """
    try:
        reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True, skipinitialspace=True)
        columns = tuple(next(reader, ()))
        lines = [(f"line {reader.line_num}", values) for values in reader if values]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{name}: expected a CSV in UTF-8; {error}") from error
    _refuse_twice(columns, name=name)
    for place, values in lines:
        if len(values) != len(columns):
            raise InputError(
                f"{name}, {place}: expected {len(columns)} values ({', '.join(columns)}), found {len(values)}; put "
                "names with commas in quotes, and leave no value out"
            )
    return TextTable(name, columns, tuple((place, dict(zip(columns, values, strict=True))) for place, values in lines))


def read_parquet(data: bytes, *, name: str, wanted: Sequence[str]) -> TextTable:
    """Read those of the wanted columns that a Parquet file has, as text; its other columns are named, not read.

    Raises
    ------
    InputError
        It is no Parquet file, or a wanted column holds neither text nor numbers.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        columns = tuple(file.schema_arrow.names)
        _refuse_twice(columns, name=name)
        table = file.read(columns=[column for column in columns if column in wanted])
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{name}: expected a Parquet file, could not read it ({error})") from error
    for field in table.schema:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            raise InputError(f"{name}: expected text or numbers in the column {field.name}, found {field.type}")
    rows = [{column: _as_text(value) for column, value in row.items()} for row in table.to_pylist()]
    return TextTable(name, columns, tuple((f"row {number}", row) for number, row in enumerate(rows, 1)))


def whole_number(text: str) -> int:
    """Read a whole number, also as "3.0": so it is written where a column with gaps was held as floats.

    Raises
    ------
    ValueError
        It is none.
    """
    return int(text.removesuffix(".0"))


def _as_text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _refuse_twice(columns: Sequence[str], *, name: str) -> None:
    twice = [column for column, count in Counter(columns).items() if count > 1]
    if twice:
        raise InputError(f"{name}: the column {twice[0]} is there {columns.count(twice[0])} times; remove all but one")
