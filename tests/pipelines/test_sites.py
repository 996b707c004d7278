"""One site on its way through a run, without Ray: read, project, label, commit; every failure is a row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tifffile

from nucseg_ray.imaging.codecs import decode_label_png, encode_image_png
from nucseg_ray.imaging.labels import ForegroundLabels
from nucseg_ray.pipelines.network import MAPS_FIELDS
from nucseg_ray.pipelines.rows import pack, to_table, unpack
from nucseg_ray.pipelines.sites import READ_SCHEMA, Sink, finish_batch, read_batch
from nucseg_ray.plates.manifest import MANIFEST
from nucseg_ray.storage.ledger import begin_run, committed_stems
from nucseg_ray.storage.locations import Location
from nucseg_ray.storage.parts import read_parts

RUN = "run-1"
VARIANT = ForegroundLabels()
# The network saw the images smaller than they are: its least area is more of their pixels.
SCALE = 0.75
PREDICTED_SCHEMA = pa.schema([*READ_SCHEMA, *MAPS_FIELDS])


def _manifest(**planes: list[str]) -> pa.Table:
    rows = [
        {"plate": "P", "well": "A01", "site": site, "timepoint": None, "channel": "w1", "planes": names}
        for site, names in planes.items()
    ]
    return pa.Table.from_pylist(rows, schema=MANIFEST)


def _read(root: Path, **planes: list[str]) -> list[dict[str, Any]]:
    table = read_batch(_manifest(**planes), root=Location(str(root)))
    assert table.schema == READ_SCHEMA
    rows = table.to_pylist()
    return [{**row, "image": unpack("image", table, number)} for number, row in enumerate(rows)]


def test_planes_are_projected_by_their_maximum(tmp_path: Path) -> None:
    planes = np.random.default_rng(0).integers(0, 60_000, (3, 7, 9), dtype=np.uint16)
    for number, plane in enumerate(planes):
        tifffile.imwrite(tmp_path / f"z{number}.tif", plane)
    stack, single = _read(tmp_path, a=["z0.tif", "z1.tif", "z2.tif"], b=["z1.tif"])
    np.testing.assert_array_equal(stack["image"], planes.max(axis=0))
    np.testing.assert_array_equal(single["image"], planes[1])
    assert stack["image"].dtype == np.uint16
    assert (stack["Metadata_Plate"], stack["Metadata_Well"], stack["Metadata_Site"]) == ("P", "A01", "a")
    assert (stack["stage"], stack["error"], stack["retryable"]) == (None, None, None)


def test_types_do_not_widen_one_another(tmp_path: Path) -> None:
    """As tensor columns of Arrow they would: 8 bits beside 16, grey beside RGB."""
    rng = np.random.default_rng(1)
    images = {
        "a": rng.integers(0, 255, (5, 6), dtype=np.uint8),
        "b": rng.integers(0, 60_000, (8, 3), dtype=np.uint16),
        "c": rng.integers(0, 255, (4, 4, 3), dtype=np.uint8),
    }
    for name, image in images.items():
        (tmp_path / f"{name}.png").write_bytes(encode_image_png(image))
    for row in _read(tmp_path, **{name: [f"{name}.png"] for name in images}):
        expected = images[row["Metadata_Site"]]
        np.testing.assert_array_equal(row["image"], expected)
        assert row["image"].dtype == expected.dtype


def test_what_cannot_be_read_says_where_and_why(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "small.tif", np.zeros((4, 4), np.uint8))
    tifffile.imwrite(tmp_path / "large.tif", np.zeros((4, 5), np.uint8))
    tifffile.imwrite(tmp_path / "signed.tif", np.zeros((4, 4), np.int16))
    (tmp_path / "folder.tif").mkdir()
    (tmp_path / "text.tif").write_bytes(b"II*\0 and no more")
    rows = _read(
        tmp_path,
        differ=["small.tif", "large.tif"],
        folder=["folder.tif"],
        gone=["small.tif", "gone.tif"],
        good=["small.tif"],
        signed=["signed.tif"],
        text=["text.tif"],
    )
    found = {row["Metadata_Site"]: (row["stage"], row["retryable"]) for row in rows}
    assert found == {
        "differ": ("decode", False),
        "folder": ("read", True),
        "gone": ("read", True),
        "good": (None, None),
        "signed": ("decode", False),
        "text": ("decode", False),
    }
    reasons = {row["Metadata_Site"]: row["error"] for row in rows}
    assert "large.tif: expected a plane of (4, 4) uint8 like small.tif, found (4, 5) uint8" in reasons["differ"]
    for site in ("folder", "gone", "signed", "text"):
        assert f"{site}.tif" in reasons[site]
    assert [row["Metadata_Site"] for row in rows if row["image"] is not None] == ["good"]


def _predicted(**maps: np.ndarray | str) -> pa.Table:
    """Make what reaches ``finish_batch``: maps by site, or the reason why there are none."""
    rows = []
    for site, value in maps.items():
        failed = isinstance(value, str)
        rows.append(
            {
                **{"Metadata_Plate": "P", "Metadata_Well": "A01", "Metadata_Site": site, "Metadata_Timepoint": None},
                **pack("image", np.full((30, 40), 9, np.uint8)),
                **{"stage": None, "error": value if failed else None, "retryable": None, "seconds": 1.5},
                **pack("maps", None if failed else value),
                **{"scale": None if failed else SCALE, "diameter_px": None if failed else 60.0},
            }
        )
    return to_table(rows, PREDICTED_SCHEMA)


def _maps(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    maps = np.zeros((30, 40, 1), np.uint8)
    for y0, x0, y1, x1 in boxes:
        maps[y0:y1, x0:x1] = 255
    return maps


def _sites(out: Path) -> dict[str, dict[str, Any]]:
    location = Location(str(out))
    rows = read_parts(location, "sites", committed_stems(location)).to_pylist()
    return {row["Metadata_Site"]: row for row in rows}


def test_a_block_is_committed_with_its_outcomes(tmp_path: Path) -> None:
    begin_run(Location(str(tmp_path)), RUN, ())
    sink = Sink(Location(str(tmp_path)), RUN, "both")
    # A map of the wrong shape cannot be measured; it must not take the others along.
    odd = np.full((30, 41, 1), 255, np.uint8)
    table = _predicted(
        broken="predict: ResourceExhaustedError: no memory",
        none=_maps(),
        odd=odd,
        two=_maps((2, 3, 8, 11), (20, 20, 29, 30), (1, 30, 6, 37)),  # the last has 35 pixels
    )
    counts = finish_batch(table, variant=VARIANT, sink=sink).to_pylist()
    assert counts == [{"segmented": 1, "empty": 1, "failed": 2, "n_nuclei": 2, "output_error": None}]
    sites = _sites(tmp_path)
    assert {name: (row["outcome"], row["n_nuclei"], row["stage"], row["retryable"]) for name, row in sites.items()} == {
        "broken": ("failed", None, "predict", True),
        "none": ("empty", 0, None, None),
        "odd": ("failed", None, "label", False),
        "two": ("segmented", 2, None, None),
    }
    assert sites["broken"]["reason"] == "predict: ResourceExhaustedError: no memory"
    assert all((row["height"], row["width"]) == (30, 40) and row["seconds"] >= 1.5 for row in sites.values())
    assert {name: row["diameter_px"] for name, row in sites.items()} == {
        **{"broken": None, "none": 60.0, "odd": 60.0, "two": 60.0}
    }
    nuclei = read_parts(Location(str(tmp_path)), "nuclei", None).to_pylist()
    assert [(row["ObjectNumber"], row["Nuclei_AreaShape_Area"]) for row in nuclei] == [(1, 48), (2, 90)]
    assert {(row["Metadata_Site"], row["Nuclei_Intensity_MeanIntensity"]) for row in nuclei} == {("two", 9.0)}
    masks = {path.stem: path.read_bytes() for path in (tmp_path / "masks/P/A01").iterdir()}
    assert set(masks) == {"none", "two"}
    expected = np.zeros((30, 40), np.int32)
    expected[2:8, 3:11], expected[20:29, 20:30] = 1, 2
    np.testing.assert_array_equal(decode_label_png(masks["two"], name="two"), expected)
    rows = read_parts(Location(str(tmp_path)), "masks", None).to_pylist()
    assert {row["Metadata_Site"]: row["png"] for row in rows} == masks


def test_a_site_that_fails_the_second_time_leaves_no_mask(tmp_path: Path) -> None:
    begin_run(Location(str(tmp_path)), RUN, ())
    sink = Sink(Location(str(tmp_path)), RUN, "png")
    mask = tmp_path / "masks/P/A01/a.png"
    finish_batch(_predicted(a=_maps((2, 3, 8, 11))), variant=VARIANT, sink=sink)
    assert mask.exists()
    finish_batch(_predicted(a="predict: RuntimeError: gone"), variant=VARIANT, sink=sink)
    assert not mask.exists()
    assert {name: row["outcome"] for name, row in _sites(tmp_path).items()} == {"a": "failed"}


@pytest.mark.parametrize("spoilt", ["masks", "nuclei", "sites"])
def test_an_output_that_cannot_be_written_comes_back_as_a_value(tmp_path: Path, spoilt: str) -> None:
    begin_run(Location(str(tmp_path)), RUN, ())
    (tmp_path / spoilt).write_text("a file where a folder must be")
    sink = Sink(Location(str(tmp_path)), RUN, "png")
    (counts,) = finish_batch(_predicted(a=_maps((2, 3, 8, 11))), variant=VARIANT, sink=sink).to_pylist()
    assert str(tmp_path / spoilt) in counts["output_error"]
    assert not list(tmp_path.glob("sites/*"))
