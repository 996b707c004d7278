"""How large a pixel is, by what microscopes and their software write into files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile

from nucseg_ray.imaging.codecs import decode_planes

GREY8 = np.random.default_rng(11).integers(0, 255, (18, 25), np.uint8, endpoint=True)


def _written(**options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, GREY8, **{"photometric": "minisblack", **options})
    return buffer.getvalue()


def _sized(x: float | None, y: float | None = None, unit: str | None = None) -> bytes:
    sizes = {"PhysicalSizeX": x, "PhysicalSizeXUnit": unit, "PhysicalSizeY": y, "PhysicalSizeYUnit": unit}
    metadata = {name: value for name, value in sizes.items() if value is not None}
    return _written(ome=True, metadata={"axes": "YX", **metadata})


def _resolved(pixels_a_unit: float, unit: str, **options: Any) -> bytes:
    return _written(resolution=(pixels_a_unit, pixels_a_unit), resolutionunit=unit, **options)


def _metaseries(x: str, units: str = "um", state: str = "on") -> bytes:
    sides = "".join(f'<prop id="spatial-calibration-{axis}" type="float" value="{x}"/>\n' for axis in "xy")
    return _written(
        metadata=None,
        software="MetaSeries",
        description="<MetaData>\n<PlaneInfo>\n"
        f'<prop id="spatial-calibration-state" type="bool" value="{state}"/>\n{sides}'
        f'<prop id="spatial-calibration-units" type="string" value="{units}"/>\n</PlaneInfo>\n</MetaData>',
    )


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(_sized(0.5, 0.5), 0.5, id="ome, um by the schema"),
        pytest.param(_sized(0.5), 0.5, id="ome, one side"),
        pytest.param(_sized(500, 500, "nm"), 0.5, id="ome nm"),
        pytest.param(_sized(0.0005, 0.0005, "mm"), 0.5, id="ome mm"),
        pytest.param(_sized(1, 1, "pixel"), None, id="ome pixel"),
        pytest.param(_sized(0.5, 0.7), None, id="ome, no square"),
        pytest.param(_sized(0.5, 0.504), 0.5, id="ome, nearly a square"),
        pytest.param(_sized(0, 0), None, id="ome 0"),
        pytest.param(_sized(350, 350), None, id="ome, the screen's"),
        pytest.param(_sized(None), None, id="ome without"),
        pytest.param(_metaseries("1.3672"), 1.3672, id="metaxpress"),
        pytest.param(_metaseries("1.3672", state="off"), None, id="metaxpress, off"),
        pytest.param(_metaseries("1", units="pixel"), None, id="metaxpress, pixels"),
        pytest.param(_resolved(25_400 / 0.5, "inch"), 0.5, id="tags, inch"),
        pytest.param(_resolved(10_000 / 0.5, "centimeter"), 0.5, id="tags, cm"),
        pytest.param(_resolved(72, "inch"), None, id="72 dpi"),
        pytest.param(_resolved(1200, "inch"), None, id="1200 dpi"),
        pytest.param(_resolved(2, "none"), None, id="tags, no unit"),
        pytest.param(
            _resolved(2, "none", imagej=True, photometric=None, metadata={"unit": "micron"}), 0.5, id="imagej"
        ),
        pytest.param(
            _resolved(2, "none", imagej=True, photometric=None, metadata={"unit": "\\u00B5m"}), 0.5, id="imagej µ"
        ),
        pytest.param(
            _resolved(2, "none", imagej=True, photometric=None, metadata={"unit": "pixel"}), None, id="imagej px"
        ),
        pytest.param(_resolved(2, "none", imagej=True, photometric=None), None, id="imagej without"),
        pytest.param(_written(), None, id="nothing said"),
        pytest.param(cv2.imencode(".png", GREY8)[1].tobytes(), None, id="png"),
    ],
)
def test_the_size_of_pixels(data: bytes, expected: float | None) -> None:
    planes = decode_planes(data, name="a")
    assert planes.pixel_size_um == (None if expected is None else pytest.approx(expected, rel=1e-6))
    assert (planes.channels, planes.n_z) == (("",), 1)
    np.testing.assert_array_equal(planes.plane(0, 0), GREY8)


def test_sizes_of_real_plates(realdata: Path) -> None:
    """MetaXpress says 1.37 µm (binning 8 x 8 at 40x); the Operetta's and Photoshop's tags are the screen's."""
    folder = realdata / "plates"
    expected = {
        "imagexpress/9987_Plate_3434/TimePoint_1/ZStep_1/9987_B02_s1_w1.TIF": 1.3672,
        "operetta/r03c03f03p01-ch5sk1fk1fl1.tiff": None,
        "sbs_bbbc013/Channel2-01-A-01.tif": None,
    }
    for path, size in expected.items():
        planes = decode_planes((folder / path).read_bytes(), name=path)
        assert (planes.channels, planes.n_z, planes.pixel_size_um) == (("",), 1, size)
        np.testing.assert_array_equal(planes.plane(0, 0), tifffile.imread(folder / path))
