"""How large the nuclei of a plate are: found on some sites, recorded, and gone on with."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest

from nucseg_ray.config_predict import PredictSettings
from nucseg_ray.errors import NucsegError, OutputError
from nucseg_ray.imaging.codecs import decode_image, decode_label_png, encode_image_png
from nucseg_ray.model.bundle import REFERENCE, read_bundle
from nucseg_ray.model.predictor import choose_form
from nucseg_ray.model.segmenter import Segmenter
from nucseg_ray.pipelines.diameters import Survey, Surveyor, plate_diameters, scattered, survey_rows
from nucseg_ray.pipelines.inference import run_predict
from nucseg_ray.pipelines.models import ship
from nucseg_ray.pipelines.network import ActorPool
from nucseg_ray.pipelines.run_record import read_diameters, record_diameters
from nucseg_ray.pipelines.site_image import Reading
from nucseg_ray.plates.planning import Choice, choose
from nucseg_ray.plates.understanding import understand
from nucseg_ray.storage.ledger import committed_stems
from nucseg_ray.storage.listing import list_files
from nucseg_ray.storage.locations import Location
from nucseg_ray.storage.parts import read_parts


def _settings(plates: Path, model: Path, out: Path, **wanted: Any) -> PredictSettings:
    return PredictSettings(input=str(plates), output=str(out), model=str(model), preflight=False, **wanted)


def _mask(path: Path) -> np.ndarray:
    return decode_label_png(path.read_bytes(), name=path.name)


def _sites(out: Path) -> list[dict[str, Any]]:
    location = Location(str(out))
    return read_parts(location, "sites", committed_stems(location)).to_pylist()


def _enlarge(image: Path, folder: Path, times: float) -> None:
    """Write an image as PNG, enlarged; images of a plate have one size, so it is cut to that or mirrored."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = decode_image(image.read_bytes(), name=image.name)
    large = cv2.resize(pixels, None, fx=times, fy=times, interpolation=cv2.INTER_LINEAR)
    short = max(0, 256 - large.shape[0])
    square = np.pad(large, (0, short), mode="symmetric")[:256, :256]
    (folder / f"{image.stem}.png").write_bytes(encode_image_png(square))


def _manifest(root: Location) -> pa.Table:
    return choose(understand((path for path, _ in list_files(root)), root_name="P1"), Choice()).manifest


@pytest.fixture(scope="module")
def plates(plate: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three plates of two rows: as they are, with one image that is none; twice as large; and a mixture of sizes."""
    folder = tmp_path_factory.mktemp("plates") / "in"
    (folder / "P1").mkdir(parents=True)
    for number, image in enumerate(sorted((plate / "P1").glob("*-[AB]-*.tif"))):
        shutil.copy(image, folder / "P1")
        _enlarge(image, folder / "twice", 2.0)
        _enlarge(image, folder / "mixed", 2.5 if number % 2 else 1.0)
    (folder / "P1" / "Channel1-13-B-01.tif").write_bytes(b"not an image")
    return folder


@pytest.fixture(scope="module")
def run(plates: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Output of a run over two of them, then over all; and what both logged of diameters."""
    out = tmp_path_factory.mktemp("sizes") / "out"
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("nucseg_ray.pipelines.diameters")
    logger.addHandler(handler)
    first = plates.parent / "first" / "in"
    shutil.copytree(plates / "twice", first / "twice")
    shutil.copytree(plates / "P1", first / "P1")
    account = run_predict(_settings(first, tiny_model, out))
    assert (account.sites, account.failed) == (24, 1)
    logger.removeHandler(handler)
    return out, said


def test_where_sites_agree_the_plate_has_one_diameter() -> None:
    assert Survey("P", (20.0, 22.0, 30.0, 32.0), True, seen=6).diameter_px == 26.0
    assert Survey("P", (20.0, 33.0), True, seen=6).diameter_px is None
    assert Survey("P", (20.0, 21.0), False, seen=6).diameter_px is None
    assert Survey("P", (20.0,), True, seen=6).diameter_px is None
    assert Survey("P", (), True, seen=6).diameter_px is None


def test_a_survey_that_saw_little_does_not_decide_for_the_next_run(
    plate: Path, tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As in an hour in which a file server is away: once it is back, the plate has its diameter."""
    folder = tmp_path / "in" / "P1"
    shutil.copytree(plate / "P1", folder)
    images = sorted(folder.iterdir())
    for image in images[:20]:
        image.write_bytes(b"")
    out, bundle = Location(str(tmp_path / "out")), read_bundle(tiny_model)
    actors = ActorPool(form=REFERENCE, actors=1, cpus=1.0, threads=2, use_gpu=False)
    look: dict[str, Any] = {"plates": ["P1"], "reading": Reading(Location(str(folder))), "out": out, "pool": actors}
    manifest = _manifest(Location(str(folder)))
    assert plate_diameters(manifest, files=ship(bundle), **look) == {"P1": None}
    (told,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert re.match(r"plate P1: (9|1\d) of 12 sites that were looked at could not be read or predicted \(.*empty", told)
    assert read_diameters(out) == {}
    for image in images[:20]:
        shutil.copy(plate / "P1" / image.name, image)
    again = plate_diameters(manifest, files=ship(bundle), **look)
    assert again == read_diameters(out) and again["P1"] == pytest.approx(18, rel=0.15)


@pytest.mark.parametrize("rows", [1, 2, 5, 12, 13, 96, 384, 1_000_000])
def test_sites_come_from_all_over_the_plate(rows: int) -> None:
    found = scattered(rows)
    assert len(set(found)) == len(found) == min(rows, 12)
    assert set(found) <= set(range(rows))
    if rows == 96:  # eight rows of twelve: the first six are in six rows and in six columns
        assert len({row // 12 for row in found[:6]}) >= 5 and len({row % 12 for row in found[:6]}) >= 5


def test_the_sites_of_a_plate_are_its_own() -> None:
    """Also where a rerun has added sites to a plate, behind those of others."""
    plates = ["B"] * 7 + ["A"] * 40 + ["B"] * 3 + ["C"]
    manifest = pa.concat_tables(
        [pa.table({"plate": plates[:45], "site": range(45)}), pa.table({"plate": plates[45:], "site": range(45, 51)})]
    )
    found = survey_rows(manifest, ["C", "B"], most=12)
    assert {plate: set(table.column("plate").to_pylist()) for plate, table in found.items()} == {"C": {"C"}, "B": {"B"}}
    sites = [*range(7), 47, 48, 49]
    assert found["B"].column("site").to_pylist() == [sites[row] for row in scattered(10)]


def test_a_survey_is_what_a_segmenter_finds(plate: Path, tiny_model: Path, ray_session: None) -> None:
    root, bundle = Location(str(plate / "P1")), read_bundle(tiny_model)
    form = choose_form(bundle, runtime="auto", use_gpu=False)
    actors = ActorPool(form=form, actors=1, cpus=1.0, threads=2, use_gpu=False)
    manifest = _manifest(root)
    rows = scattered(24)
    found = Surveyor(reading=Reading(root), files=ship(bundle), pool=actors).survey("P1", manifest.take(rows))
    segmenter = Segmenter.load(tiny_model, threads=2)
    files = [manifest.column("planes")[row].as_py()[0] for row in rows]
    alone = [segmenter.estimate_diameter(decode_image((plate / "P1" / f).read_bytes(), name=f)) for f in files[:6]]
    assert found.one_shape and len(found.estimates) >= 4
    assert list(found.estimates) == [diameter for diameter in alone if diameter is not None]
    # Nuclei have radii of 7 to 11 px.
    assert found.diameter_px == pytest.approx(18, rel=0.15)


def test_a_process_that_dies_is_told_with_the_way_round(
    plate: Path, tiny_model: Path, tmp_path: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Deadly:
        """Ends the process that loads it, as a library's crash or a lack of memory does."""

        def folder(self) -> Path:
            os._exit(1)

    monkeypatch.setattr("nucseg_ray.pipelines.diameters.MOST_RETRIES", 0)
    root, out = Location(str(plate / "P1")), Location(str(tmp_path / "out"))
    manifest = _manifest(root)
    actors = ActorPool(form=REFERENCE, actors=1, cpus=1.0, threads=2, use_gpu=False)
    with pytest.raises(NucsegError, match="(?s)diameter of nuclei ended .*give the .* with --nucleus-diameter-px"):
        plate_diameters(manifest, plates=["P1"], reading=Reading(root), out=out, files=Deadly(), pool=actors)
    assert not (tmp_path / "out").exists()


def test_each_plate_is_seen_at_its_own_scale(
    plates: Path, run: tuple[Path, list[str]], segment: Callable[..., np.ndarray]
) -> None:
    out, said = run
    diameters = json.loads((out / "diameters.json").read_text())
    assert diameters["twice"] == pytest.approx(2 * diameters["P1"], rel=0.25)
    assert [line.partition(":")[0] for line in said] == ["plate P1", "plate twice"]
    assert f"about {diameters['P1']:.1f} px across" in said[0]
    for site in _sites(out):
        failed = site["outcome"] == "failed"
        assert site["diameter_px"] == (None if failed else diameters[site["Metadata_Plate"]])
    for name in ("P1", "twice"):
        masks = sorted((out / "masks" / name).rglob("*.png"))
        assert len(masks) == (11 if name == "P1" else 12)
        for path in masks:
            well = path.parent.name
            (image,) = (plates / name).glob(f"*-{well[0]}-{well[1:]}.*")
            np.testing.assert_array_equal(_mask(path), segment(image, out=out))


def test_a_rerun_goes_on_with_the_record_and_adds_new_plates(
    plates: Path, run: tuple[Path, list[str]], tiny_model: Path, segment: Callable[..., np.ndarray]
) -> None:
    out, _ = run
    before = read_diameters(Location(str(out)))
    # As if it had been found otherwise: what is recorded counts, not what would be found now.
    record_diameters(Location(str(out)), {**before, "twice": 20.0})
    for path in (out / "sites" / "plate=twice").iterdir():
        path.unlink()
    assert run_predict(_settings(plates.parent / "first" / "in", tiny_model, out)).done_before == 12
    assert {site["diameter_px"] for site in _sites(out) if site["Metadata_Plate"] == "twice"} == {20.0}
    shutil.copytree(plates / "mixed", plates.parent / "first" / "in" / "mixed")
    assert run_predict(_settings(plates.parent / "first" / "in", tiny_model, out)).sites == 36
    assert read_diameters(Location(str(out))) == {**before, "twice": 20.0, "mixed": None}
    images = sorted((plates / "mixed").iterdir())
    for image in images:
        well = "".join(image.stem.split("-")[2:])
        np.testing.assert_array_equal(_mask(out / "masks" / "mixed" / well / "1.png"), segment(image))
    sizes = [site["diameter_px"] for site in _sites(out) if site["Metadata_Plate"] == "mixed" and site["diameter_px"]]
    assert max(sizes) > 2 * min(sizes)

    (out / "diameters.json").write_text('{"P0": null, "P1": "large"}')
    with pytest.raises(OutputError, match=r"diameters.json: expected the diameter of plate P1 in .* found 'large'; "):
        read_diameters(Location(str(out)))
    (out / "diameters.json").write_text('{"P0": null, "P1": 45}')
    assert read_diameters(Location(str(out))) == {"P0": None, "P1": 45.0}


def test_a_number_is_taken_for_every_plate_and_no_site_is_surveyed(
    plates: Path, run: tuple[Path, list[str]], tiny_model: Path
) -> None:
    out, _ = run
    settings = _settings(plates.parent / "first" / "in" / "P1", tiny_model, out, nucleus_diameter_px="18")
    account = run_predict(settings.model_copy(update={"overwrite": True}))
    assert (account.sites, account.failed, account.done_before) == (12, 1, 0)
    assert not (out / "diameters.json").exists()  # that of the runs before went with them
    assert {site["diameter_px"] for site in _sites(out) if site["outcome"] != "failed"} == {18.0}
    assert json.loads((out / "run.json").read_text())["made_with"]["nucleus_diameter_px"] == 18.0
