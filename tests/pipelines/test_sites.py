"""One site on its way through a run, without Ray: read, project, label, commit; every failure is a row."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest
import tifffile

from nucseg_ray.imaging.codecs import decode_label_png, encode_image_png
from nucseg_ray.imaging.labelling import Labelling
from nucseg_ray.imaging.labels import ForegroundLabels
from nucseg_ray.imaging.projection import Projection
from nucseg_ray.pipelines import sites
from nucseg_ray.pipelines.mixed_images import MixedImages
from nucseg_ray.pipelines.network import MAPS_FIELDS
from nucseg_ray.pipelines.rows import pack, to_table, unpack
from nucseg_ray.pipelines.site_image import Reading
from nucseg_ray.pipelines.sites import CHOICE, READ_SCHEMA, Sink, finish_batch, read_batch
from nucseg_ray.plates.manifest import MANIFEST
from nucseg_ray.plates.planning import Choice, choose
from nucseg_ray.plates.understanding import understand
from nucseg_ray.storage.fetch import fetch_many
from nucseg_ray.storage.ledger import begin_run, committed_stems
from nucseg_ray.storage.listing import list_files
from nucseg_ray.storage.locations import Location
from nucseg_ray.storage.parts import read_parts

RUN = "run-1"
LABELLING = Labelling(ForegroundLabels())
# The network saw the images smaller than they are: its least area is more of their pixels.
SCALE = 0.75
PREDICTED_SCHEMA = pa.schema([*READ_SCHEMA, *MAPS_FIELDS])


def _manifest(**planes: list[str]) -> pa.Table:
    rows = [
        {"plate": "P", "well": "A01", "site": site, "timepoint": None, "channel": "w1", "planes": names}
        for site, names in planes.items()
    ]
    return pa.Table.from_pylist(rows, schema=MANIFEST)


def _read(root: Path, *, _how: dict[str, Any] | None = None, **planes: list[str]) -> list[dict[str, Any]]:
    table = read_batch(_manifest(**planes), reading=Reading(Location(str(root)), **(_how or {})))
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


def test_a_high_stack_takes_the_memory_of_a_few_of_its_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    names = [f"z{number:03d}.tif" for number in range(200)]
    for name in names:
        tifffile.imwrite(tmp_path / name, rng.integers(0, 60_000, (256, 256), dtype=np.uint16))
    _read(tmp_path, a=names[:2])
    tracemalloc.start()
    (row,) = _read(tmp_path, a=names)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert row["stage"] is None
    assert peak < 100 * 256 * 256 * 2  # 32 files are fetched ahead, and some are under way


def test_what_is_left_of_a_failed_stack_is_not_taken_for_the_next(tmp_path: Path) -> None:
    for number in range(3):
        tifffile.imwrite(tmp_path / f"{number}.tif", np.full((4, 4), number, np.uint8))
    (tmp_path / "bad.tif").write_bytes(b"no")
    failed, good = _read(tmp_path, a=["bad.tif", "0.tif", "1.tif"], b=["2.tif"])
    assert (failed["stage"], good["stage"], good["image"].max()) == ("decode", None, 2)


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


STACK = np.random.default_rng(2).integers(0, 60_000, (2, 3, 8, 9), dtype=np.uint16)


@pytest.fixture
def stacks(tmp_path: Path) -> Path:
    """Folder of files that hold two channels of three planes, one with the names and sizes that the others lack."""
    named = {"axes": "CZYX", "Channel": {"Name": ["DAPI", "GFP"]}, "PhysicalSizeX": 0.65, "PhysicalSizeY": 0.65}
    tifffile.imwrite(tmp_path / "ome.tif", STACK, ome=True, photometric="minisblack", metadata=named)
    tifffile.imwrite(tmp_path / "plain.tif", STACK, photometric="minisblack", metadata={"axes": "CZYX"})
    tifffile.imwrite(tmp_path / "pages.tif", STACK[0], photometric="minisblack", metadata=None)
    tifffile.imwrite(tmp_path / "one.tif", STACK[1, 2])
    tifffile.imwrite(tmp_path / "time.tif", STACK, ome=True, photometric="minisblack", metadata={"axes": "TZYX"})
    return tmp_path


@pytest.mark.parametrize(
    ("how", "files", "expected"),
    [
        ({"channel": "gfp"}, ["ome.tif"], STACK[1].max(axis=0)),
        ({"channel": "2", "plane": 3}, ["ome.tif"], STACK[1, 2]),
        ({"channel": "1", "projection": "mean"}, ["plain.tif"], np.floor(STACK[0].mean(axis=0) + 0.5)),
        ({"unnamed_pages": "Z"}, ["pages.tif"], STACK[0].max(axis=0)),
        ({"plane": 1, "channel": "1", "unnamed_pages": "Z"}, ["pages.tif"], STACK[0, 0]),
        ({"channel": "2", "unnamed_pages": "C"}, ["pages.tif"], STACK[0, 1]),
        ({"unnamed_pages": "Z"}, ["one.tif", "pages.tif"], np.maximum(STACK[1, 2], STACK[0].max(axis=0))),
        ({"projection": "best-focus"}, ["one.tif", "one.tif"], STACK[1, 2]),
    ],
)
def test_the_channel_and_the_planes_inside_a_file(
    stacks: Path, how: dict[str, Any], files: list[str], expected: np.ndarray
) -> None:
    (row,) = _read(stacks, _how=how, a=files)
    assert (row["stage"], row["error"], row["file"]) == (None, None, files[0])
    assert row["image"].dtype == np.uint16
    np.testing.assert_array_equal(row["image"], expected)
    assert row["pixel_size_um"] == (0.65 if files == ["ome.tif"] else None)


@pytest.mark.parametrize(
    ("how", "file", "message"),
    [
        (
            {},
            "ome.tif",
            "expected one channel, found 2 channels (1 DAPI, 2 GFP); choose one by --channel, or save each",
        ),
        ({}, "plain.tif", "expected one channel, found 2 channels (1, 2); choose one by --channel, or save each"),
        ({"channel": "RFP"}, "ome.tif", "expected a channel 'RFP', found 2 channels (1 DAPI, 2 GFP); choose one of"),
        ({"channel": "0"}, "ome.tif", "expected a channel '0', found 2 channels (1 DAPI, 2 GFP); choose one of"),
        ({"channel": "DAPI"}, "one.tif", "expected a channel 'DAPI', found only one, without a name; leave --channel"),
        ({}, "pages.tif", "expected one image, or pages of which the file says what they are, found 3 pages of which"),
        (
            {"plane": 4, "unnamed_pages": "Z"},
            "pages.tif",
            "--z 4: expected such a plane, found planes 1 to 3; choose another",
        ),
        (
            {"plane": 0, "unnamed_pages": "Z"},
            "pages.tif",
            "--z 0: expected such a plane, found planes 1 to 3; choose another",
        ),
        ({"plane": 2}, "one.tif", "--z 2: expected such a plane, found one plane; choose another"),
        (
            {},
            "time.tif",
            "expected one time point, found 2; --timepoints 1-2 takes each as a site of its own",
        ),
        ({"times_inside": True}, "time.tif", "--timepoints 3: expected such a time point, found 2"),
        ({"needs_pixel_size": True}, "one.tif", "says nothing of the size of its pixels, which a diameter of nuclei"),
    ],
)
def test_what_a_file_does_not_hold_is_the_settings_matter(
    stacks: Path, how: dict[str, Any], file: str, message: str
) -> None:
    table = _manifest(a=[file]).set_column(3, "timepoint", pa.array(["3"]))  # names may tell of one, too
    (row,) = read_batch(table, reading=Reading(Location(str(stacks)), **how)).to_pylist()
    assert (row["image"], row["stage"], row["retryable"]) == (None, CHOICE, False)
    assert row["error"].startswith(f"{file}: {message}")


def test_time_points_inside_a_file_are_sites_and_the_file_is_fetched_once(
    stacks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = _manifest(a=["time.tif"], b=["time.tif"], c=["one.tif"], d=["time.tif"])
    table = table.set_column(3, "timepoint", pa.array(["1", "2", "1", "1"]))
    asked: list[str] = []

    def counted(root: Location, paths: list[str]) -> Iterator[Any]:
        asked.extend(paths)
        return fetch_many(root, paths)

    monkeypatch.setattr(sites, "fetch_many", counted)
    read = read_batch(table, reading=Reading(Location(str(stacks)), times_inside=True))
    expected = (STACK[0].max(axis=0), STACK[1].max(axis=0), STACK[1, 2], STACK[0].max(axis=0))
    for row, pixels in enumerate(expected):
        np.testing.assert_array_equal(unpack("image", read, row), pixels)
    assert asked == ["time.tif", "one.tif", "time.tif"]


def test_a_size_of_pixels_that_is_given_stands_for_that_of_the_files(stacks: Path) -> None:
    how = {"pixel_size_um": 0.3, "needs_pixel_size": True, "channel": "1"}
    rows = _read(stacks, _how=how, a=["ome.tif"], b=["one.tif"])
    assert [row["pixel_size_um"] for row in rows] == [0.3, 0.3]


@pytest.mark.parametrize(
    ("plate", "channel", "n_planes", "look", "sizes"),
    [
        ("sbs_bbbc013", "Channel2", 1, ((640, 640), "uint8"), {None}),
        ("imagexpress/9987_Plate_3434", "w1", 2, ((256, 256), "uint16"), {1.3672}),
        # Its stored projections are darker than the planes beside them.
        ("imagexpress/Projection-Mix", "w2", 3, ((512, 512), "uint16"), {1.3668}),
        ("operetta", "ch5", 1, ((1080, 1080), "uint16"), {None}),
        ("cellvoyager", "C01", 4, ((2000, 2000), "uint16"), {None}),
    ],
)
def test_real_plates_are_read(
    realdata: Path, plate: str, channel: str, n_planes: int, look: tuple[Any, str], sizes: set[float | None]
) -> None:
    root = Location(str(realdata / "plates" / plate))
    understood = understand((path for path, _ in list_files(root)), root_name=root.name)
    for z in ("max", "best-focus"):
        manifest = choose(understood, Choice(channel=channel, z=z)).manifest.slice(0, 3)
        table = read_batch(manifest, reading=Reading(root, projection=cast("Projection", z)))
        assert table.column("error").to_pylist() == [None] * manifest.num_rows
        assert set(table.column("pixel_size_um").to_pylist()) == sizes
        for row, files in enumerate(manifest.column("planes").to_pylist()):
            planes = [tifffile.imread(root.path + "/" + file) for file in files]
            image = unpack("image", table, row)
            assert len(planes) == n_planes
            assert (image.shape, str(image.dtype)) == look
            if z == "max":
                np.testing.assert_array_equal(image, np.max(planes, axis=0))
            else:
                assert any((image == plane).all() for plane in planes)


def _predicted(**maps: np.ndarray | str) -> pa.Table:
    """Make what reaches ``finish_batch``: maps by site, or the reason why there are none."""
    rows = []
    for site, value in maps.items():
        failed = isinstance(value, str)
        rows.append(
            {
                **{"Metadata_Plate": "P", "Metadata_Well": "A01", "Metadata_Site": site, "Metadata_Timepoint": None},
                **{"file": f"{site}.tif", **pack("image", np.full((30, 40), 9, np.uint8)), "pixel_size_um": 0.5},
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
    counts = finish_batch(table, labelling=LABELLING, sink=sink).to_pylist()
    assert counts == [
        {
            **{"segmented": 1, "empty": 1, "failed": 2, "n_nuclei": 2, "output_error": None},
            **{"plate": "P", "looks": [("30 x 40 px uint8", "broken.tif")]},
        }
    ]
    sites = _sites(tmp_path)
    assert {name: (row["outcome"], row["n_nuclei"], row["stage"], row["retryable"]) for name, row in sites.items()} == {
        "broken": ("failed", None, "predict", True),
        "none": ("empty", 0, None, None),
        "odd": ("failed", None, "label", False),
        "two": ("segmented", 2, None, None),
    }
    assert sites["broken"]["reason"] == "predict: ResourceExhaustedError: no memory"
    assert all((row["height"], row["width"]) == (30, 40) and row["seconds"] >= 1.5 for row in sites.values())
    assert {row["pixel_size_um"] for row in sites.values()} == {0.5}
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


def test_a_run_may_keep_other_nuclei_than_its_model_does(tmp_path: Path) -> None:
    begin_run(Location(str(tmp_path)), RUN, ())
    sink = Sink(Location(str(tmp_path)), RUN, "none")
    table = _predicted(a=_maps((0, 3, 8, 11), (12, 3, 18, 8), (12, 20, 18, 25), (20, 20, 29, 30)))  # 64, 30, 30, 90 px
    other = Labelling(ForegroundLabels(), min_area_px=30, drop_border=True)
    (counts,) = finish_batch(table, labelling=other, sink=sink).to_pylist()
    assert counts["n_nuclei"] == 3
    nuclei = read_parts(Location(str(tmp_path)), "nuclei", None).to_pylist()
    assert [(row["ObjectNumber"], row["Nuclei_AreaShape_Area"]) for row in nuclei] == [(1, 30), (2, 30), (3, 90)]


def test_images_of_a_plate_that_differ_are_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    mixed = MixedImages()
    parts = [
        ("P", {"30 x 40 px uint8": "a.tif"}),
        ("Q", {"30 x 41 px uint8": "q.tif"}),
        ("P", {"30 x 40 px uint16": "b.tif", "30 x 40 px uint8": "c.tif"}),
        ("P", {"9 x 9 px uint8 in colour": "d.tif"}),
        ("R", {}),
    ]
    for plate, looks in parts:
        mixed.add(plate, looks)
    assert caplog.messages == [
        "plate P: its images differ: a.tif is 30 x 40 px uint8, b.tif is 30 x 40 px uint16; each is segmented as it "
        "is. If they do not belong together, move one kind away and run again with --overwrite"
    ]
    for plate in "STU":
        mixed.add(plate, {"1 x 1 px uint8": "s.tif", "2 x 2 px uint8": "t.tif"})
    assert [message.partition(":")[0] for message in caplog.messages] == ["plate P", "plate S", "plate T"]
    assert caplog.messages[-1].endswith("Further plates are not told of")


def test_a_site_that_fails_the_second_time_leaves_no_mask(tmp_path: Path) -> None:
    begin_run(Location(str(tmp_path)), RUN, ())
    sink = Sink(Location(str(tmp_path)), RUN, "png")
    mask = tmp_path / "masks/P/A01/a.png"
    finish_batch(_predicted(a=_maps((2, 3, 8, 11))), labelling=LABELLING, sink=sink)
    assert mask.exists()
    finish_batch(_predicted(a="predict: RuntimeError: gone"), labelling=LABELLING, sink=sink)
    assert not mask.exists()
    assert {name: row["outcome"] for name, row in _sites(tmp_path).items()} == {"a": "failed"}


@pytest.mark.parametrize("spoilt", ["masks", "nuclei", "sites"])
def test_an_output_that_cannot_be_written_comes_back_as_a_value(tmp_path: Path, spoilt: str) -> None:
    begin_run(Location(str(tmp_path)), RUN, ())
    (tmp_path / spoilt).write_text("a file where a folder must be")
    sink = Sink(Location(str(tmp_path)), RUN, "png")
    (counts,) = finish_batch(_predicted(a=_maps((2, 3, 8, 11))), labelling=LABELLING, sink=sink).to_pylist()
    assert str(tmp_path / spoilt) in counts["output_error"]
    assert not list(tmp_path.glob("sites/*"))
