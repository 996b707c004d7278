"""A real run over files that hold channels, planes and the size of their pixels, and what it keeps of the nuclei."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile

from nucseg_ray import commands
from nucseg_ray.imaging.codecs import decode_label_png
from nucseg_ray.imaging.labelling import Labelling
from nucseg_ray.imaging.synthetic import SiteLook, render_site
from nucseg_ray.model.segmenter import Segmenter
from nucseg_ray.storage.ledger import committed_stems
from nucseg_ray.storage.locations import Location
from nucseg_ray.storage.parts import read_parts

# Nuclei of 18 pixels are 9 um across where a pixel is 0.5 um.
SIZES_UM = {"near": 0.5, "far": 0.6}
LEAST_AREA_PX = 150


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    """Folder of OME-TIFFs of two channels and three planes, and the plane in focus of each DNA channel.

    One has lost the end of its last page; one is of another size; one does not say how large its pixels are.
    """
    folder = tmp_path_factory.mktemp("stacks") / "stacks"
    folder.mkdir()
    rng = np.random.default_rng(4)
    sharp = {}
    for name, size_um, height in (("damaged", 0.5, 128), ("far", 0.6, 128), ("near", 0.5, 150), ("unsaid", None, 128)):
        look = SiteLook(shape_px=(height, 128), nuclei=8, radius_px=(7.0, 11.0), bit_depth=16)
        dna = render_site(look, rng)[0]
        blurred = [cv2.GaussianBlur(dna, (0, 0), sigma) for sigma in (3.0, 5.0)]
        other = rng.integers(0, 60_000, (3, height, 128), np.uint16)
        pixels = np.stack([other, np.stack([blurred[0], dna, blurred[1]])])
        size = {} if size_um is None else {"PhysicalSizeX": size_um, "PhysicalSizeY": size_um}
        metadata = {"axes": "CZYX", "Channel": {"Name": ["GFP", "DNA"]}, **size}
        path = folder / f"{name}.ome.tif"
        tifffile.imwrite(path, pixels, ome=True, photometric="minisblack", compression="zlib", metadata=metadata)
        sharp[name] = dna
    with tifffile.TiffFile(folder / "damaged.ome.tif") as tiff:
        page = tiff.pages[5]
        start, size = page.dataoffsets[0], page.databytecounts[0]
    data = bytearray((folder / "damaged.ome.tif").read_bytes())
    data[start : start + size] = bytes(size)
    (folder / "damaged.ome.tif").write_bytes(data)
    return folder, sharp


@pytest.fixture(scope="module")
def run(
    stacks: tuple[Path, dict[str, np.ndarray]],
    tiny_model: Path,
    tmp_path_factory: pytest.TempPathFactory,
    call: Callable[..., Any],
) -> tuple[Path, list[str], Any]:
    """Output of a run over them, its flags, and how it ended."""
    out = tmp_path_factory.mktemp("stacks_run") / "out"
    flags = ["--input", stacks[0], "--output", out, "--model", tiny_model, "--channel", "dna", "--z", "best-focus"]
    flags += ["--nucleus-diameter-um", "9", "--min-area-px", LEAST_AREA_PX, "--drop-border"]
    return out, flags, call(commands.predict, *flags)


def _sites(out: Path) -> dict[str, dict[str, Any]]:
    location = Location(str(out))
    rows = read_parts(location, "sites", committed_stems(location)).to_pylist()
    return {row["Metadata_Site"].partition(".")[0]: row for row in rows}


def test_what_a_file_lacks_is_its_row(run: tuple[Path, list[str], Any]) -> None:
    out, _, ended = run
    assert ended.printed == ["4 sites = 2 segmented + 0 empty + 2 failed (of these, done before: 0)"]
    sites = _sites(out)
    assert {name: (row["stage"], row["pixel_size_um"]) for name, row in sites.items()} == {
        "damaged": ("decode", None),
        "far": (None, 0.6),
        "near": (None, 0.5),
        "unsaid": ("choose", None),
    }
    assert sites["damaged"]["reason"].startswith("damaged.ome.tif, page 6: cannot be decoded")
    assert "give it by --pixel-size-um" in sites["unsaid"]["reason"]


def test_masks_equal_a_plain_loop_over_the_planes_in_focus(
    run: tuple[Path, list[str], Any], stacks: tuple[Path, dict[str, np.ndarray]], tiny_model: Path
) -> None:
    out, _, _ = run
    segmenter = Segmenter.load(tiny_model, threads=2)
    labelling = Labelling(segmenter.bundle.labels, min_area_px=LEAST_AREA_PX, drop_border=True)
    for name, size_um in SIZES_UM.items():
        (found,) = segmenter.maps_of([stacks[1][name]], diameters_px=[9 / size_um])
        expected = labelling.label(found.maps, scale=found.scale)
        mask = decode_label_png((out / "masks" / "stacks" / f"{name}.ome.png").read_bytes(), name=name)
        np.testing.assert_array_equal(mask, expected)
        assert _sites(out)[name]["diameter_px"] == pytest.approx(9 / size_um)
        areas = np.bincount(mask.ravel())[1:]
        assert areas.size and areas.min() >= LEAST_AREA_PX
        assert not np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).any()
    assert not (out / "diameters.json").exists()
    made_with = json.loads((out / "run.json").read_text())["made_with"]
    assert {
        name: made_with[name] for name in ("channel", "z", "nucleus_diameter_um", "min_area_px", "drop_border")
    } == {
        **{"channel": "dna", "z": "best-focus", "nucleus_diameter_um": 9.0},
        **{"min_area_px": LEAST_AREA_PX, "drop_border": True},
    }


def test_sizes_that_differ_are_told_of_and_a_size_given_mends_the_rest(
    run: tuple[Path, list[str], Any], call: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, flags, _ = run
    out = tmp_path / "out"
    flags = [out if flag == flags[3] else flag for flag in flags]
    with caplog.at_level(logging.WARNING):
        ended = call(commands.predict, *flags, "--pixel-size-um", "0.5", "--z", "1")
    assert ended.printed[0].startswith("4 sites = ")
    assert {name: row["pixel_size_um"] for name, row in _sites(out).items()} == dict.fromkeys(
        ("damaged", "far", "near", "unsaid"), 0.5
    )
    (told,) = [message for message in caplog.messages if "its images differ" in message]
    assert told.startswith(
        "plate stacks: its images differ: damaged.ome.tif is 128 x 128 px uint16, near.ome.tif is 150 x 128 px uint16"
    )


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ([], "expected one channel, found 2 channels (1 GFP, 2 DNA); choose one by --channel"),
        (["--channel", "DAPI"], "expected a channel 'DAPI', found 2 channels (1 GFP, 2 DNA); choose one of these"),
        (["--channel", "DNA", "--z", "7"], "--z 7: expected such a plane, found planes 1 to 3; choose another"),
    ],
)
def test_a_choice_that_no_file_offers_is_refused_before_the_run(
    stacks: tuple[Path, dict[str, np.ndarray]],
    tiny_model: Path,
    tmp_path: Path,
    call: Callable[..., Any],
    flags: list[str],
    told: str,
) -> None:
    ended = call(commands.predict, "--input", stacks[0], "--output", tmp_path / "out", "--model", tiny_model, *flags)
    assert (ended.code, ended.printed) == (2, [])
    assert "could not read the image: " in ended.said[-1] and told in ended.said[-1]
    assert not (tmp_path / "out" / "run.json").exists()
