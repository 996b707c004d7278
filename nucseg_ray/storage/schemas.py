"""The columns of the output tables; names follow CellProfiler and pycytominer.

Every field carries its description, and its unit where it has one, as Arrow metadata, which Parquet keeps: the tables
explain themselves.
"""

from __future__ import annotations

import pyarrow as pa


def _field(name: str, kind: pa.DataType, description: str, *, unit: str = "", nullable: bool = False) -> pa.Field:
    """Make a field that explains itself."""
    metadata = {"description": description} | ({"unit": unit} if unit else {})
    return pa.field(name, kind, nullable=nullable, metadata=metadata)


KEY_FIELDS: tuple[pa.Field, ...] = (
    _field("Metadata_Plate", pa.string(), "Name of the plate, as text also where it looks like a number"),
    _field("Metadata_Well", pa.string(), "Well, such as A01; empty for a plain folder of images"),
    _field("Metadata_Site", pa.string(), "Site (field of view) in the well, or the image's name"),
    _field("Metadata_Timepoint", pa.string(), "Time point; null where there is only one", nullable=True),
)

KEY_NAMES: tuple[str, ...] = tuple(field.name for field in KEY_FIELDS)

_BOX = "Box around the nucleus, half-open:"

NUCLEI: pa.Schema = pa.schema(
    [
        *KEY_FIELDS,
        _field("ObjectNumber", pa.int32(), "Number of the nucleus in its label mask, from 1"),
        _field("Nuclei_Location_Center_X", pa.float64(), "Column of the centre of mass", unit="px"),
        _field("Nuclei_Location_Center_Y", pa.float64(), "Row of the centre of mass", unit="px"),
        _field("Nuclei_AreaShape_BoundingBoxMinimum_X", pa.int32(), f"{_BOX} first column", unit="px"),
        _field("Nuclei_AreaShape_BoundingBoxMinimum_Y", pa.int32(), f"{_BOX} first row", unit="px"),
        _field("Nuclei_AreaShape_BoundingBoxMaximum_X", pa.int32(), f"{_BOX} column after the last", unit="px"),
        _field("Nuclei_AreaShape_BoundingBoxMaximum_Y", pa.int32(), f"{_BOX} row after the last", unit="px"),
        _field("Nuclei_AreaShape_Area", pa.int64(), "Pixels of the nucleus", unit="px"),
        _field(
            "Nuclei_Intensity_MeanIntensity",
            pa.float64(),
            "Mean of the segmented channel's pixels inside the nucleus, as stored, or with --illumination evenly lit",
            unit="counts",
        ),
    ]
)

OUTCOMES: tuple[str, ...] = ("segmented", "empty", "failed")

SITES: pa.Schema = pa.schema(
    [
        *KEY_FIELDS,
        _field("outcome", pa.string(), "segmented, empty (no nucleus found) or failed"),
        _field("n_nuclei", pa.int32(), "Nuclei found; null where the site failed", nullable=True),
        _field("height", pa.int32(), "Rows of the image; null where it could not be read", unit="px", nullable=True),
        _field("width", pa.int32(), "Columns of the image; null where it could not be read", unit="px", nullable=True),
        _field(
            "diameter_px",
            pa.float64(),
            "Diameter of nuclei that the network's scale was chosen for; null where too few show: it is then 1",
            unit="px",
            nullable=True,
        ),
        _field(
            "pixel_size_um",
            pa.float64(),
            "Side of a pixel, given or from the file; null where neither says it",
            unit="um",
            nullable=True,
        ),
        _field("stage", pa.string(), "Step that failed; null where none did", nullable=True),
        _field("reason", pa.string(), "Why it failed; null where it did not", nullable=True),
        _field(
            "retryable", pa.bool_(), "Whether the same input might succeed later; null unless failed", nullable=True
        ),
        _field("seconds", pa.float64(), "Time the site took", unit="s", nullable=True),
    ]
)

MASKS: pa.Schema = pa.schema(
    [
        *KEY_FIELDS,
        _field("png", pa.binary(), "Label mask as a 16-bit grey PNG: 0 background, else ObjectNumber"),
        _field("n_nuclei", pa.int32(), "Nuclei in the mask"),
    ]
)
