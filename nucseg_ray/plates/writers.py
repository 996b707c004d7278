"""How instruments would name an image: the ways back from a `FileName` to a path, one for each scheme.

A `ValueError` says that a name has no place for something; what else gets lost, `Scheme.format` finds by reading back.
"""

from __future__ import annotations

from nucseg_ray.plates.keys import Well
from nucseg_ray.plates.naming import FileName


def write_bbbc(name: FileName) -> str:
    """Write channel, running number, row, column."""
    well = Well.parse(name.well)
    return f"{_folder(name)}{name.channel}-{_number(well):02d}-{well.letters}-{well.column:02d}.tif"


def write_imagexpress(name: FileName) -> str:
    """Write folders for time points and planes; well, site and wavelength in the name."""
    time = "" if name.timepoint is None else f"TimePoint_{name.timepoint}/"
    step = "" if name.z is None else f"ZStep_{name.z}/"
    return f"{_folder(name)}{time}{step}{name.plate or 'plate'}_{name.well}_s{name.site}_{name.channel}.tif"


def write_cellvoyager(name: FileName) -> str:
    """Write time point, field, timeline, action, plane, channel."""
    z = 1 if name.z is None else name.z
    numbers = f"T{int(name.timepoint or 1):04d}F{int(name.site):03d}L01A01Z{z:02d}{name.channel}"
    return f"{_folder(name)}{name.plate or 'plate'}_{name.well}_{numbers}.tif"


def write_cq1(name: FileName) -> str:
    """Write number of the well, field, time point, plane, channel; projections in a folder of their own."""
    below = "Projection" if name.z is None else "Image"
    numbers = f"F{int(name.site):04d}T{int(name.timepoint or 1):04d}Z{name.z or 0:03d}{name.channel}"
    return f"{_folder(name)}{below}/{name.well}{numbers}.tif"


def write_operetta(name: FileName) -> str:
    """Write row, column, field, plane, channel, time point."""
    well = Well.parse(name.well)
    z = 1 if name.z is None else name.z
    position = f"r{well.row + 1:02d}c{well.column:02d}f{int(name.site):02d}p{z:02d}"
    return f"{_folder(name)}Images/{position}-{name.channel}sk{name.timepoint or 1}fk1fl1.tiff"


def write_incell(name: FileName) -> str:
    """Write row, column, field, wavelength; plane and time point where there are several."""
    well = Well.parse(name.well)
    wavelength = f" wv {name.channel}" if name.channel else ""
    plane = "" if name.z is None else f" z {name.z}"
    time = "" if name.timepoint is None else f" time {name.timepoint} - 0ms"
    return f"{_folder(name)}{well.letters} - {well.column:02d}(fld {name.site}{wavelength}{plane}{time}).tif"


def write_scanr(name: FileName) -> str:
    """Write well, its number, position, plane, time point, channel."""
    well = Well.parse(name.well)
    z = 0 if name.z is None else name.z
    numbers = f"W{_number(well):05d}--P{int(name.site):05d}--Z{z:05d}--T{int(name.timepoint or 0):05d}"
    return f"{_folder(name)}data/{well.letters}{well.column}--{numbers}--{name.channel}.tif"


def write_micromanager(name: FileName) -> str:
    """Write a folder for each position of the HCS site generator; channel, position, time point, plane in the name."""
    well = Well.parse(name.well)
    z = 0 if name.z is None else name.z
    numbers = f"position{int(name.site):03d}_time{int(name.timepoint or 0):09d}_z{z:03d}"
    return f"{_folder(name)}{well.letters}{well.column}-Site_{name.site}/img_{name.channel}_{numbers}.tif"


def write_cellomics(name: FileName) -> str:
    """Write well, field, channel."""
    return f"{_folder(name)}{name.plate or 'plate'}_{name.well}f{int(name.site):02d}{name.channel}.tif"


def write_folders(name: FileName) -> str:
    """Write a folder for each well and each site, or files of sites where there are no channels."""
    file = f"/{name.channel}" if name.channel else ""
    return f"{_folder(name)}{name.well}/{name.site}{file}.tif"


def write_image(name: FileName) -> str:
    """Write the site as it is."""
    return f"{_folder(name)}{name.site}.png"


def _folder(name: FileName) -> str:
    return "" if name.plate is None else f"{name.plate}/"


def _number(well: Well) -> int:
    """Count row by row to a well, on the smallest plate that has it."""
    plates = ((8, 12), (16, 24), (32, 48))
    columns = next(columns for rows, columns in plates if well.row < rows and well.column <= columns)
    return well.row * columns + well.column
