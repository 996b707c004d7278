"""What a TIFF says of itself: the size of its pixels and the names of its channels, as instruments write them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

import tifffile

# Outside of these a size is no microscope's: 72 or 300 dots an inch, or the camera's own pixels.
LEAST_UM, MOST_UM = 0.01, 10.0
# How much the two sides of a pixel may differ and it still count as square.
SQUARE_WITHIN = 0.02
# TIFF 6.0: ResolutionUnit 2 is the inch, 3 the centimetre, 1 none; 4 and 5 come from private writers.
_RESOLUTION_UNITS_UM = {2: 25_400.0, 3: 10_000.0, 4: 1_000.0, 5: 1.0}
_UNITS_UM = {
    **dict.fromkeys(("um", "µm", "μm", "micron", "microns", "micrometer", "micrometre", r"\u00b5m"), 1.0),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-3),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e3),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 1e4),
    **dict.fromkeys(("m", "meter", "metre"), 1e6),
    **dict.fromkeys(("in", "inch", "inches"), 25_400.0),
    **dict.fromkeys(("pm",), 1e-6),
    **dict.fromkeys(("å", "angstrom"), 1e-4),
}
_METASERIES = re.compile(r'<prop id="spatial-calibration-(state|x|y|units)" type="[a-z]+" value="([^"]*)"/>')


def pixel_size_um(page: tifffile.TiffPage) -> float | None:
    """Give the side of a file's pixels from its first page, in micrometres; None where nothing believable says it.

    Looked at, the first that is there counts: OME-XML (``PhysicalSizeX``), MetaXpress's ``spatial-calibration-x``,
    ImageJ's ``unit`` with the resolution tags, the resolution tags with their own unit. What is no size that a
    microscope has, or differs by more than 2 % between x and y, counts as not said.
    """
    if page.is_ome:
        return _ome_size(page.description)
    if page.is_metaseries:
        return _metaseries_size(page.description)
    if page.is_imagej:
        unit = tifffile.tifffile.imagej_description_metadata(page.imagej_description).get("unit", "")
        return _believed(*_resolution_um(page, _unit_um(str(unit))))
    return _believed(*_resolution_um(page, _RESOLUTION_UNITS_UM.get(int(page.tags.valueof("ResolutionUnit", 2)))))


def channel_names(tiff: tifffile.TiffFile, *, channels: int, first_labels: Sequence[int]) -> tuple[str, ...]:
    """Give the names of a file's channels in their order, empty where it has none.

    OME-XML names channels. ImageJ has one label a plane: ``first_labels`` are the planes whose labels name the
    channels, if these differ from one another.
    """
    if tiff.is_ome:
        pixels = _ome_image(tiff.pages.first.description)
        names = [] if pixels is None else ome_names(pixels)
    elif tiff.is_imagej:
        labels = tiff.imagej_metadata.get("Labels", [])
        labels = [labels] if isinstance(labels, str) else labels
        names = [str(labels[number]).strip() for number in first_labels if number < len(labels)]
    else:
        names = []
    return told_apart(names) if len(names) == channels else ("",) * channels


def told_apart(names: Sequence[str]) -> tuple[str, ...]:
    """Give the names of channels as they are; all empty where two that are not are the same."""
    told = [name.casefold() for name in names if name]
    return tuple(names) if len(set(told)) == len(told) else ("",) * len(names)


def ome_names(pixels: ElementTree.Element) -> list[str]:
    """Give the names of the channels of an OME image."""
    return [channel.get("Name", "").strip() for channel in pixels.iterfind("{*}Channel")]


def _ome_image(description: str) -> ElementTree.Element | None:
    """Give the ``Pixels`` of the first image; None where the XML is damaged."""
    try:
        root = ElementTree.fromstring(description)
    except ElementTree.ParseError:
        return None
    return root.find("{*}Image/{*}Pixels")


def _ome_size(description: str) -> float | None:
    pixels = _ome_image(description)
    if pixels is None:
        return None
    # In the schema a size without a unit is in micrometres; a file that names one side alone means square pixels.
    axes = [axis for axis in "XY" if f"PhysicalSize{axis}" in pixels.attrib] or ["X"]
    sides = [
        _number(pixels.get(f"PhysicalSize{axis}", ""))
        * (_unit_um(pixels.get(f"PhysicalSize{axis}Unit", "µm")) or math.nan)
        for axis in axes
    ]
    return _believed(sides[0], sides[-1])


def _metaseries_size(description: str) -> float | None:
    found = dict(_METASERIES.findall(description))
    if found.get("state") != "on":
        return None
    unit = _unit_um(found.get("units", "")) or math.nan
    return _believed(_number(found.get("x", "")) * unit, _number(found.get("y", "")) * unit)


def _resolution_um(page: tifffile.TiffPage, unit_um: float | None) -> tuple[float, float]:
    """Give both sides of a pixel by the tags that say how many of them a unit holds."""
    if unit_um is None or "XResolution" not in page.tags:
        return math.nan, math.nan
    sides = []
    for tag in ("XResolution", "YResolution"):
        value: Any = page.tags.valueof(tag, page.tags.valueof("XResolution"))
        numerator, denominator = value if isinstance(value, tuple) else (value, 1)
        sides.append(unit_um * denominator / numerator if numerator else math.nan)
    return sides[0], sides[1]


def _believed(x_um: float, y_um: float) -> float | None:
    if not (LEAST_UM <= x_um <= MOST_UM and abs(x_um - y_um) <= SQUARE_WITHIN * x_um):
        return None
    return x_um


def _unit_um(unit: str) -> float | None:
    return _UNITS_UM.get(unit.strip().casefold())


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
