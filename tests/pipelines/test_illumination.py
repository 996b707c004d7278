"""Uneven light on plates: found before a run, recorded, gone on with, and seen by every stage after."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import tifffile

from nucseg_ray.config_predict import PredictSettings
from nucseg_ray.errors import DecodeError, InputError, MissingInputError, OutputMismatchError, UsageError
from nucseg_ray.imaging.codecs import decode_image, decode_label_png, encode_image_png
from nucseg_ray.imaging.illumination import Illumination
from nucseg_ray.imaging.measure import measure
from nucseg_ray.imaging.metrics import match, pool
from nucseg_ray.imaging.shading import Shading
from nucseg_ray.imaging.synthetic import SiteLook, encode_tiff, render_site
from nucseg_ray.pipelines.diameters import scattered
from nucseg_ray.pipelines.illumination import describe_shading, find_lights, record_lights, without_begun_plates
from nucseg_ray.pipelines.inference import run_predict
from nucseg_ray.pipelines.light_survey import Seen, seen_on
from nucseg_ray.pipelines.run_record import clear_output
from nucseg_ray.pipelines.site_image import Reading
from nucseg_ray.pipelines.sites import read_batch
from nucseg_ray.plates.manifest import MANIFEST
from nucseg_ray.plates.planning import Choice, choose
from nucseg_ray.plates.understanding import understand
from nucseg_ray.storage.illuminations import Illuminations, read_illumination
from nucseg_ray.storage.ledger import committed_stems
from nucseg_ray.storage.listing import list_files
from nucseg_ray.storage.locations import Location
from nucseg_ray.storage.parts import read_parts

SIDE = 128
# Four fifths of the light are lost from left to right.
LIGHT = np.broadcast_to(np.linspace(1, 0.2, SIDE) / 0.6, (SIDE, SIDE))


@pytest.fixture(scope="module")
def plates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two plates of 24 wells, ``left`` lit from there and ``even``; one image of ``left`` is none."""
    folder = tmp_path_factory.mktemp("light") / "in"
    for number in range(24):
        look = SiteLook(shape_px=(SIDE, SIDE), nuclei=8, radius_px=(7.0, 11.0), gradient=0.0, bit_depth=8)
        image, _ = render_site(look, np.random.default_rng([4, number]))
        row, column = "ABCD"[number // 6], number % 6 + 1
        for plate, light in (("left", LIGHT), ("even", 1.0)):
            (folder / plate).mkdir(parents=True, exist_ok=True)
            lit = np.clip(np.rint(image * light), 0, 255).astype(np.uint8)
            (folder / plate / f"Channel1-{number + 1:02d}-{row}-{column:02d}.tif").write_bytes(encode_tiff(lit))
    (folder / "left" / "Channel1-13-C-01.tif").write_bytes(b"not an image")
    return folder


def _manifest(folder: Path) -> pa.Table:
    paths = (path for path, _ in list_files(Location(str(folder))))
    return choose(understand(paths, root_name=folder.name), Choice()).manifest


def _find(choice: str | Path, folder: Path, known: Illuminations | None = None) -> dict[str, Any]:
    manifest = _manifest(folder)
    return dict(find_lights(str(choice), manifest, manifest, reading=Reading(Location(str(folder))), known=known))


def _npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def test_sites_of_a_survey_of_light_cover_a_plate() -> None:
    assert sorted(scattered(96, most=96)) == list(range(96))
    found = scattered(384, most=96)
    assert len(set(found)) == 96
    # In all sixteen rows, and in most of the twenty-four columns.
    assert {row // 24 for row in found} == set(range(16)) and len({row % 24 for row in found}) > 12


def test_a_plate_that_is_still_being_written_waits_for_its_light(tmp_path: Path) -> None:
    """Else its first wells would tell the light for good, or being too few, refuse finished plates, too."""
    names = [f"{plate}/Channel1-{n:02d}-A-{n:02d}.tif" for plate in ("begun", "done", "lit") for n in (1, 2, 3)]
    unsettled = [names[2], names[8]]
    planned = choose(understand(names, root_name="in"), Choice(channel="Channel1"), unsettled=unsettled)
    known = Illuminations(Location(str(tmp_path)))
    record_lights({"lit": Illumination(np.ones((2, 2), np.float32))}, "Channel1", into=known)
    left = without_begun_plates(planned, "estimate", known=known)
    assert left.manifest.column("plate").to_pylist() == ["done"] * 3 + ["lit"] * 2
    assert sorted(map(str, left.held_back)) == ["begun/A01/1", "begun/A02/1", "begun/A03/1", "lit/A03/1"]
    without_record = without_begun_plates(planned, "estimate", known=None)
    assert without_record.manifest.column("plate").to_pylist() == ["done"] * 3
    of_some = choose(understand(names, root_name="in"), Choice(channel="Channel1", wells="A01"), unsettled=unsettled)
    assert (of_some.held_back, of_some.manifest.num_rows) == ((), 3)
    assert without_begun_plates(of_some, "estimate", known=None).manifest.column("plate").to_pylist() == ["done"]
    for choice in ("none", "light.npy"):
        assert without_begun_plates(planned, choice, known=None) is planned


def test_a_site_tells_its_light_its_shape_or_why_it_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encode_image_png(np.full((9, 8), 50, np.uint8)))
    (tmp_path / "b.png").write_bytes(encode_image_png(np.zeros((9, 8), np.uint8)))
    (tmp_path / "c.png").write_bytes(encode_image_png(np.arange(216, dtype=np.uint8).reshape(9, 8, 3)))
    (tmp_path / "d.png").write_bytes(b"no")
    light, dark, colour, damaged = seen_on(_manifest(tmp_path), Reading(Location(str(tmp_path))))
    assert light.shape == (9, 8) and set(light.light.levels.tolist()) == {50.0}
    assert (dark, colour) == (Seen("b.png", (9, 8), "uint8"), Seen("c.png", (9, 8, 3), "uint8"))
    assert damaged.shape is None and "d.png" in damaged.problem


def test_what_is_read_is_corrected_after_its_projection(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    planes = rng.integers(0, 4000, (2, 6, 7), dtype=np.uint16)
    for number, plane in enumerate(planes):
        tifffile.imwrite(tmp_path / f"z{number}.tif", plane)
    tifffile.imwrite(tmp_path / "small.tif", planes[0][:5])
    lights = Illuminations(Location(str(tmp_path / "lights")))
    light = Illumination(rng.uniform(0.5, 1.5, (6, 7)).astype(np.float32), 33.0)
    record_lights({"P/1": light}, "w1", into=lights)
    planes_of = {"P/1 1": ["z0.tif", "z1.tif"], "P/1 2": ["small.tif"], "Q 1": ["z0.tif"]}
    rows = [
        {"plate": key.split()[0], "well": "A01", "site": key.split()[1], "channel": "w1", "planes": names}
        for key, names in planes_of.items()
    ]
    manifest = pa.Table.from_pylist(rows, schema=MANIFEST)
    table = read_batch(manifest, reading=Reading(Location(str(tmp_path)), lights=lights))
    used = lights.of("P/1", "w1")
    np.testing.assert_allclose(used.function, light.function / light.function.mean(), rtol=1e-5)
    pixels = np.frombuffer(table.column("image")[0].as_py(), np.uint16).reshape(6, 7)
    np.testing.assert_array_equal(pixels, used.correct(planes.max(axis=0)))
    assert table.column("stage").to_pylist() == [None, "decode", "read"]
    small, missing = table.column("error").to_pylist()[1:]
    assert "small.tif: expected an image of 6 x 7 px like the illumination function of its plate, found 5 x 7" in small
    assert "plate=Q/w1.tif: expected a file, found none" in missing


def test_a_plate_of_few_sites_of_several_sizes_in_colour_or_unreadable_is_refused(
    tmp_path: Path, ray_session: None
) -> None:
    def write(plate: str, numbers: range, content: bytes) -> None:
        (tmp_path / plate / "P").mkdir(parents=True, exist_ok=True)
        for number in numbers:
            (tmp_path / plate / "P" / f"Channel1-{number:02d}-A-{number:02d}.tif").write_bytes(content)

    grey, large = encode_tiff(np.full((9, 9), 70, np.uint8)), encode_tiff(np.full((9, 11), 70, np.uint8))
    write("few", range(1, 5), grey)
    with pytest.raises(
        UsageError,
        match="at least 16 sites on each plate, found 1 plates .*P has 4.*--illumination OUT/illumination/plate=",
    ):
        _find("estimate", tmp_path / "few")
    write("sizes", range(1, 13), grey)
    write("sizes", range(13, 20), large)
    sizes = (
        r"plate P: expected images of one size and type, found 9 x .* px uint8 \(P/Channel1-.*, 9 x .* px uint8 \(P/"
    )
    with pytest.raises(InputError, match=sizes):
        _find("estimate", tmp_path / "sizes")
    write("types", range(1, 10), grey)
    write("types", range(10, 19), encode_tiff(np.full((9, 9), 70, np.uint16)))
    with pytest.raises(InputError, match=r"one size and type, found 9 x 9 px uint.* \(P/Channel1-.*, 9 x 9 px uint"):
        _find("estimate", tmp_path / "types")
    write("colour", range(1, 18), encode_image_png(np.arange(243, dtype=np.uint8).reshape(9, 9, 3)))
    with pytest.raises(InputError, match="plate P: expected grey images, found 9 x 9 px uint8 in colour"):
        _find("estimate", tmp_path / "colour")
    write("broken", range(1, 18), b"nothing")
    with pytest.raises(InputError, match="plate P: expected images, but none of 17 sites could be read.*Channel1-"):
        _find("estimate", tmp_path / "broken")
    write("dark", range(1, 18), encode_tiff(np.zeros((9, 9), np.uint8)))
    (dark,) = _find("estimate", tmp_path / "dark").values()
    assert (dark.verdict, dark.sites, dark.shape) == ("unknown", 0, (9, 9))
    assert describe_shading(dark).startswith("its light is not known, only 0 sites show any")


def test_a_function_from_elsewhere_must_fit_and_stay_the_same(plates: Path, tmp_path: Path, ray_session: None) -> None:
    given, known = tmp_path / "light.npy", Illuminations(Location(str(tmp_path / "known")))
    given.write_bytes(_npy(3 * LIGHT))
    found = _find(given, plates, known)
    assert sorted(found) == ["even", "left"]
    np.testing.assert_allclose(found["left"].function, LIGHT, rtol=1e-6)
    record_lights(found, "Channel1", into=known)
    assert _find(given, plates, known) == {}
    given.write_bytes(_npy(LIGHT[:, ::-1]))
    with pytest.raises(OutputMismatchError, match="is not the function that sites of plate even were"):
        _find(given, plates, known)
    # A folder as a run writes it; then one that lacks a plate.
    taken = _find(known.folder.uri, plates)
    np.testing.assert_allclose(taken["even"].function, LIGHT, rtol=1e-6)
    only = tmp_path / "only" / "plate=left"
    shutil.copytree(tmp_path / "known" / "plate=left", only)
    with pytest.raises(MissingInputError, match=r"plate=even/Channel1.tif: expected a file"):
        _find(only.parent, plates)
    given.write_bytes(_npy(np.ones((SIDE, SIDE + 1))))
    with pytest.raises(InputError, match="expected a function of 128 x 128 px .* found 128 x 129"):
        _find(given, plates)
    given.write_bytes(b"nothing")
    with pytest.raises(DecodeError, match="light.npy: expected an illumination function"):
        _find(given, plates)


def test_the_light_is_the_same_whichever_task_is_first_and_whatever_is_done_already(
    plates: Path, ray_session: None
) -> None:
    found = _find("estimate", plates)
    manifest = _manifest(plates)
    late = manifest.filter(pc.equal(manifest.column("well"), "D06"))
    again = find_lights("estimate", late, manifest, reading=Reading(Location(str(plates))), known=None)
    assert found == dict(again)
    assert (found["left"].verdict, found["even"].verdict) == ("uneven", "even")
    assert found["left"].sites == 23
    assert isinstance(found["left"], Shading)


def test_a_run_segments_and_measures_evenly_lit_images_and_a_rerun_goes_on_with_the_record(
    plates: Path, tiny_model: Path, segment: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    settings = PredictSettings(
        input=str(plates), output=str(out), model=str(tiny_model), illumination="estimate", preflight=False
    )
    account = run_predict(settings)
    assert (account.sites, account.failed) == (48, 1) and account.segmented > 24  # else masks agree on nothing
    assert json.loads((out / "run.json").read_text())["made_with"]["illumination"] == "estimate"
    record = out / "illumination" / "plate=left" / "Channel1.tif"
    light = read_illumination(Location(str(record)))
    across = light.function.mean(axis=0)
    assert np.abs(across - LIGHT[0]).max() < 0.15
    np.testing.assert_array_equal(tifffile.imread(out / "illumination" / "plate=even" / "Channel1.tif"), 1)

    corrected = tmp_path / "corrected" / "left"
    corrected.mkdir(parents=True)
    for image in sorted((plates / "left").iterdir())[:12]:
        well = "".join(image.stem.split("-")[2:])
        pixels = light.correct(decode_image(image.read_bytes(), name=image.name))
        (corrected / image.name).write_bytes(encode_tiff(pixels))
        mask = decode_label_png((out / "masks" / "left" / well / "1.png").read_bytes(), name=well)
        np.testing.assert_array_equal(mask, segment(corrected / image.name, out=out))
        own = [row for row in _table(out, "nuclei") if (row["Metadata_Plate"], row["Metadata_Well"]) == ("left", well)]
        for name, values in measure(mask, pixels).items():
            assert [row[name] for row in own] == values.tolist()

    # As if the light had been found otherwise: what is recorded counts, not what would be found now.
    other = Illumination(np.ascontiguousarray(light.function[:, ::-1]))
    record_lights({"left": other}, "Channel1", into=Illuminations(Location(str(out / "illumination"))))
    for part in (out / "sites" / "plate=left").iterdir():
        part.unlink()
    assert run_predict(settings).done_before == 24
    image = next(path for path in sorted((plates / "left").iterdir()))
    pixels = other.correct(decode_image(image.read_bytes(), name=image.name))
    (corrected / image.name).write_bytes(encode_tiff(pixels))
    mask = decode_label_png((out / "masks" / "left" / "A01" / "1.png").read_bytes(), name="A01")
    np.testing.assert_array_equal(mask, segment(corrected / image.name, out=out))

    with pytest.raises(OutputMismatchError, match="illumination: 'estimate' there, 'none' asked for"):
        run_predict(settings.model_copy(update={"illumination": "none"}))
    clear_output(Location(str(out)))
    assert not (out / "illumination").exists()


@pytest.mark.slow
def test_an_estimate_raises_the_average_precision_of_the_model_that_ships(tmp_path: Path, ray_session: None) -> None:
    side, light = 256, 1 - 0.95 * np.linspace(0, 1, 256)
    look = SiteLook(shape_px=(side, side), nuclei=30, radius_px=(6.0, 10.0), gradient=0.0, brightness=0.2, bit_depth=8)
    truth = {}
    for number in range(24):
        image, labels = render_site(look, np.random.default_rng([9, number]))
        row, column = "ABCD"[number // 6], number % 6 + 1
        truth[f"{row}{column:02d}"] = labels
        lit = np.clip(np.rint(image * (light / light.mean())), 0, 255).astype(np.uint8)
        file = tmp_path / "in" / "P" / f"Channel1-{number + 1:02d}-{row}-{column:02d}.tif"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode_tiff(lit))
    found = {}
    for illumination in ("none", "estimate"):
        out = tmp_path / illumination
        run_predict(PredictSettings(input=str(tmp_path / "in"), output=str(out), illumination=illumination))
        masks = {well: (out / "masks" / "P" / well / "1.png").read_bytes() for well in truth}
        scores = pool(match(truth[well], decode_label_png(mask, name=well)) for well, mask in masks.items())
        found[illumination] = float(np.mean(scores.ap))
    # By the network alone 0.914 and 0.945, and 0.948 where the light is even.
    assert found["estimate"] > found["none"] + 0.01
    assert found["estimate"] > 0.93


def _table(out: Path, name: str) -> list[dict[str, Any]]:
    location = Location(str(out))
    return read_parts(location, name, committed_stems(location)).to_pylist()
