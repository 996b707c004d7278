"""What one task hands to the ledger, checked before anything is written."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from nucseg_ray.errors import UsageError
from nucseg_ray.storage.parts import TABLES, key_rows
from nucseg_ray.storage.schemas import KEY_NAMES, OUTCOMES


@dataclass(frozen=True, slots=True)
class PartTables:
    """What one block of sites of one plate came to.

    ``sites`` holds one row a site, failed ones included; ``nuclei`` the nuclei of those that did not fail; ``masks``
    one row for each that did not fail, or None where masks do not go into Parquet. Schemas as in ``schemas``.
    """

    plate: str
    nuclei: pa.Table
    masks: pa.Table | None
    sites: pa.Table


def check_block(tables: PartTables) -> PartTables:
    """Bring the tables to their schemas and check that they tell the same story.

    Raises
    ------
    UsageError
        If they do not: what is committed must be able to answer for every nucleus.
    """
    sites = _conform(tables.sites, "sites")
    nuclei = _conform(tables.nuclei, "nuclei")
    masks = None if tables.masks is None else _conform(tables.masks, "masks")
    found = dict(zip(key_rows(sites), sites.select(["outcome", "n_nuclei"]).to_pylist(), strict=True))
    if not found or len(found) != sites.num_rows:
        raise UsageError(f"Plate {tables.plate}: expected one row a site, found none or a site twice in the block.")
    if {key[0] for key in found} != {tables.plate}:
        raise UsageError(f"Plate {tables.plate}: expected sites of this plate only, found others in the block.")
    unknown = {row["outcome"] for row in found.values()} - set(OUTCOMES)
    if unknown:
        raise UsageError(f"Plate {tables.plate}: expected the outcomes {', '.join(OUTCOMES)}, found {sorted(unknown)}.")
    done = {key: row for key, row in found.items() if row["outcome"] != "failed"}
    claimed = {key: row["n_nuclei"] for key, row in done.items() if row["n_nuclei"] != 0}
    grouped = nuclei.group_by(list(KEY_NAMES)).aggregate([([], "count_all")])
    counted = dict(zip(key_rows(grouped), grouped.column("count_all").to_pylist(), strict=True))
    for key in sorted(claimed.keys() | counted.keys(), key=str):
        if claimed.get(key) != counted.get(key):
            said, there = claimed.get(key, 0), counted.get(key, 0)
            raise UsageError(f"Site {key}: its row says {said} nuclei, the nuclei table holds {there}.")
    if masks is not None and sorted(key_rows(masks), key=str) != sorted(done, key=str):
        raise UsageError(f"Plate {tables.plate}: expected one mask for each site that did not fail, found other rows.")
    return PartTables(tables.plate, nuclei, masks, sites)


def _conform(table: pa.Table, name: str) -> pa.Table:
    """Cast a table to its schema, which also carries the descriptions of the columns."""
    schema = TABLES[name]
    if set(table.column_names) != set(schema.names):
        raise UsageError(f"Table {name}: expected the columns {schema.names}, found {table.column_names}.")
    try:
        return table.select(schema.names).cast(schema)
    except (pa.ArrowException, ValueError) as error:
        raise UsageError(f"Table {name}: does not fit its schema: {error}") from error
