"""Batch runs with real Ray processes: the same as a plain loop, nothing lost, nothing twice, bad input is a row."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.compute as pc
import pytest
import tifffile

from nucseg_ray import commands
from nucseg_ray.config_predict import PredictSettings
from nucseg_ray.errors import MissingInputError, OutputMismatchError
from nucseg_ray.imaging.codecs import decode_image, decode_label_png, encode_image_png
from nucseg_ray.imaging.measure import measure
from nucseg_ray.imaging.metrics import match, pool
from nucseg_ray.imaging.synthetic import SiteLook, render_site
from nucseg_ray.model.bundle import read_bundle, write_bundle
from nucseg_ray.pipelines.inference import run_predict
from nucseg_ray.storage.ledger import committed_stems
from nucseg_ray.storage.locations import Location
from nucseg_ray.storage.parts import read_parts

WELLS = [f"{row}{column:02d}" for row in "ABCD" for column in range(1, 7)]
TILING = {"tile_px": 128, "overlap_px": 32}
# What lies in the folder of many kinds of image, and what must become of it.
READABLE = ("deep/grey16", "grey8", "large", "odd_shape", "rgb8", "rgb16")
EMPTY = ("noise", "zero")
FAILED = {"cut_short": "decode", "float32": "decode", "gone": "read", "no_bytes": "decode", "text": "decode"}


def _settings(plate: Path, model: Path, out: Path, **wanted: Any) -> PredictSettings:
    return PredictSettings(input=str(plate), output=str(out), model=str(model), **wanted)


def _table(out: Path, name: str) -> list[dict[str, Any]]:
    location = Location(str(out))
    return read_parts(location, name, committed_stems(location)).to_pylist()


def _mask(path: Path) -> np.ndarray:
    return decode_label_png(path.read_bytes(), name=path.name)


def _files(folder: Path, *names: str) -> dict[str, tuple[int, bytes]]:
    """Give the change time and bytes of every file below some folders."""
    paths = [path for name in names for path in (folder / name).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}


@pytest.fixture(scope="module")
def plate_run(plate: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of a run over the plate, with masks in both forms."""
    out = tmp_path_factory.mktemp("plate_run") / "out"
    account = run_predict(_settings(plate / "P1", tiny_model, out, masks="both", sites_per_part=5))
    assert (account.sites, account.failed, account.done_before, account.is_balanced) == (24, 0, 0, True)
    return out


def test_masks_equal_a_plain_loop(plate: Path, plate_run: Path, segment: Callable[..., np.ndarray]) -> None:
    images = sorted((plate / "P1").glob("*.tif"))
    assert len(images) == 24
    for image in images:
        row, column = image.stem.split("-")[2:]
        mask = _mask(plate_run / "masks" / "P1" / f"{row}{column}" / "1.png")
        np.testing.assert_array_equal(mask, segment(image, out=plate_run))


def test_parquet_masks_hold_the_bytes_of_the_pngs(plate_run: Path) -> None:
    rows = _table(plate_run, "masks")
    pngs = {str(path): path.read_bytes() for path in (plate_run / "masks").rglob("*.png")}
    assert len(pngs) == 24
    assert {
        str(plate_run / "masks" / row["Metadata_Plate"] / row["Metadata_Well"] / "1.png"): row["png"] for row in rows
    } == pngs


def test_tables_and_masks_agree(plate: Path, plate_run: Path) -> None:
    sites, nuclei = _table(plate_run, "sites"), _table(plate_run, "nuclei")
    assert sorted(site["Metadata_Well"] for site in sites) == WELLS
    for site in sites:
        well = site["Metadata_Well"]
        mask = _mask(plate_run / "masks" / "P1" / well / "1.png")
        (image_path,) = (plate / "P1").glob(f"*-{well[0]}-{well[1:]}.tif")
        expected = measure(mask, decode_image(image_path.read_bytes(), name=well))
        own = [row for row in nuclei if row["Metadata_Well"] == well]
        assert [row["ObjectNumber"] for row in own] == np.unique(mask[mask > 0]).tolist()
        assert (site["n_nuclei"], site["height"], site["width"]) == (len(own), 128, 128)
        assert site["outcome"] == ("segmented" if own else "empty")
        assert site["reason"] is None and site["stage"] is None and site["seconds"] > 0
        for name, values in expected.items():
            assert [row[name] for row in own] == values.tolist()
    assert len(nuclei) == sum(site["n_nuclei"] for site in sites)


def test_most_nuclei_are_found_and_empty_wells_are_empty(plate: Path, plate_run: Path) -> None:
    truth = {path.parent.name: _mask(path) for path in (plate / "truth").rglob("*.png")}
    found = {path.parent.name: _mask(path) for path in (plate_run / "masks").rglob("*.png")}
    assert sorted(truth) == sorted(found) == WELLS
    empty = {well for well, labels in truth.items() if not labels.any()}
    assert len(empty) == 2
    assert {site["Metadata_Well"] for site in _table(plate_run, "sites") if site["outcome"] == "empty"} == empty
    assert pool([match(truth[well], found[well]) for well in WELLS]).ap[0] > 0.3


def test_parts_are_blocks_of_the_size_asked_for(plate_run: Path) -> None:
    location = Location(str(plate_run))
    sizes = [read_parts(location, "sites", [stem]).num_rows for stem in committed_stems(location)]
    assert sorted(sizes) == [4, 5, 5, 5, 5]
    stems = {path.stem for path in (plate_run / "sites").rglob("*.parquet")}
    assert stems == set(committed_stems(location))
    assert {path.stem for path in (plate_run / "nuclei").rglob("*.parquet")} == stems
    assert {path.stem for path in (plate_run / "masks").rglob("*.parquet")} == stems


def test_the_record_says_what_made_it(plate: Path, plate_run: Path, tiny_model: Path) -> None:
    record = json.loads((plate_run / "run.json").read_text())
    assert record["made_with"]["model"] == read_bundle(tiny_model).fingerprint
    assert record["made_with"]["scheme"] == "bbbc"
    assert record["settings"]["sites_per_part"] == 5
    assert not (plate_run / "lease.json").exists()


def test_a_rerun_does_nothing_and_says_so(
    plate: Path, plate_run: Path, tiny_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = _files(plate_run, "masks", "nuclei", "sites")
    assert len(before) == 24 + 3 * 5
    with caplog.at_level(logging.INFO):
        # In parts of another size: that does not change what is done.
        account = run_predict(_settings(plate / "P1", tiny_model, plate_run, masks="both", sites_per_part=7))
    assert "nothing to do: all 24 sites were done before" in caplog.text
    assert str(account) == "24 sites = 22 segmented + 2 empty + 0 failed (of these, done before: 24)"
    assert _files(plate_run, "masks", "nuclei", "sites") == before


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"tile_px": 96}, "tile_px: 1024 there, 96 asked for"),
        ({"masks": "png"}, "masks: 'both' there, 'png' asked for"),
        ({"drop_border": True, "min_area_px": 30}, "drop_border: False there, True.*min_area_px: None there, 30"),
        ({"nucleus_diameter_px": "20.0"}, "nucleus_diameter_px: 'auto' there, 20.0 asked for"),
    ],
)
def test_other_settings_are_refused(
    plate: Path, plate_run: Path, tiny_model: Path, changed: dict[str, Any], told: str
) -> None:
    before = _files(plate_run, ".")
    with pytest.raises(OutputMismatchError, match=told):
        run_predict(_settings(plate / "P1", tiny_model, plate_run, **{"masks": "both", **changed}))
    # Refused, not harmed.
    assert _files(plate_run, ".") == before


def test_another_model_is_refused_in_one_line(
    plate: Path, plate_run: Path, tiny_model: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    bundle = read_bundle(tiny_model)
    other = write_bundle(
        tmp_path / "other",
        {name: array + 1 for name, array in bundle.weights().items()},
        architecture=bundle.architecture,
        normalisation=bundle.normalisation,
        diameter_px=bundle.diameter_px,
        labels=bundle.labels,
        training={},
    )
    flags = ["--input", str(plate / "P1"), "--output", str(plate_run), "--masks", "both", "--model"]
    ended = call(commands.predict, *flags, other.folder)
    assert (ended.code, ended.printed, len(ended.said)) == (2, [], 1)
    assert ended.said[0].startswith("error: ")
    assert f"model: '{bundle.fingerprint}' there, '{other.fingerprint}' asked for" in ended.said[0]
    ended = call(commands.predict, *flags, tiny_model)
    assert ended.printed == ["24 sites = 22 segmented + 2 empty + 0 failed (of these, done before: 24)"]
    assert ended.code == 0


def test_what_is_not_there_is_named(plate: Path, tiny_model: Path, tmp_path: Path, ray_session: None) -> None:
    with pytest.raises(MissingInputError, match=r"P2: expected a folder.*Did you mean .*P1\?"):
        run_predict(_settings(plate / "P2", tiny_model, tmp_path / "out"))
    with pytest.raises(MissingInputError, match=r"nowhere: no model bundle there"):
        run_predict(_settings(plate / "P1", tmp_path / "nowhere", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_two_plates_then_overwritten_without_masks(
    plate: Path, tiny_model: Path, tmp_path: Path, segment: Callable[..., np.ndarray]
) -> None:
    for name, row in (("P1", "A"), ("P 2", "B")):
        (tmp_path / "in" / name).mkdir(parents=True)
        for image in (plate / "P1").glob(f"*-{row}-*.tif"):
            shutil.copy(image, tmp_path / "in" / name)
    out = tmp_path / "out"
    (out / "masks").mkdir(parents=True)
    (out / "notes.txt").write_text("mine")
    account = run_predict(_settings(tmp_path / "in", tiny_model, out, masks="parquet"))
    assert (account.sites, account.failed) == (12, 0)
    rows = _table(out, "masks")
    assert not list(out.rglob("*.png"))
    assert {(row["Metadata_Plate"], row["Metadata_Well"]) for row in rows} == {
        (name, f"{row}{column:02d}") for name, row in (("P1", "A"), ("P 2", "B")) for column in range(1, 7)
    }
    for row in rows:
        well = row["Metadata_Well"]
        (image,) = (tmp_path / "in" / row["Metadata_Plate"]).glob(f"*-{well[0]}-{well[1:]}.tif")
        np.testing.assert_array_equal(decode_label_png(row["png"], name=well), segment(image, out=out))
    # A part holds one plate, and its folder names it.
    for name in ("sites", "nuclei", "masks"):
        assert sorted(folder.name for folder in (out / name).iterdir()) == ["plate=P%202", "plate=P1"]
    nuclei = _table(out, "nuclei")

    with pytest.raises(OutputMismatchError, match="masks: 'parquet' there, 'none' asked for"):
        run_predict(_settings(tmp_path / "in", tiny_model, out, masks="none"))
    again = run_predict(_settings(tmp_path / "in", tiny_model, out, masks="none", overwrite=True))
    assert (again.sites, again.segmented, again.done_before) == (12, account.segmented, 0)
    assert not list((out / "masks").rglob("*.*"))
    assert (out / "notes.txt").read_text() == "mine"

    def in_order(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
        return sorted(tuple(row.values()) for row in rows)

    assert in_order(_table(out, "nuclei")) == in_order(nuclei)


@pytest.fixture(scope="module")
def odd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images of every kind, good and bad."""
    folder = tmp_path_factory.mktemp("odd") / "odd"
    (folder / "deep").mkdir(parents=True)
    rng = np.random.default_rng(5)

    def draw(height: int, width: int, bits: int, nuclei: int) -> np.ndarray:
        look = SiteLook(shape_px=(height, width), nuclei=nuclei, radius_px=(7.0, 11.0), bit_depth=bits)
        return render_site(look, rng)[0]

    grey = draw(128, 128, 8, 6)
    tifffile.imwrite(folder / "deep/grey16.tif", draw(150, 110, 16, 6))
    (folder / "grey8.png").write_bytes(encode_image_png(grey))
    tifffile.imwrite(folder / "large.tif", draw(300, 170, 16, 20))
    (folder / "odd_shape.png").write_bytes(encode_image_png(draw(97, 203, 8, 7)))
    for name, bits in (("rgb8", 8), ("rgb16", 16)):
        plane = draw(128, 96, bits, 5)
        (folder / f"{name}.png").write_bytes(
            encode_image_png(np.stack([plane - plane // 4, plane - plane // 8, plane], axis=2))
        )
    (folder / "zero.png").write_bytes(encode_image_png(np.zeros((128, 128), np.uint16)))
    tifffile.imwrite(folder / "noise.tif", rng.normal(800, 40, (128, 128)).astype(np.uint16))
    (folder / "cut_short.png").write_bytes(encode_image_png(grey)[:2000])
    tifffile.imwrite(folder / "float32.tif", grey.astype(np.float32))
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    (folder / "no_bytes.tif").write_bytes(b"")
    (folder / "text.jpg").write_text("not found")
    return folder


@pytest.fixture(scope="module")
def odd_run(
    odd_folder: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory, call: Callable[..., Any]
) -> tuple[Path, list[str], Any]:
    """Output of a run over that folder, the flags that made it, and how it ended."""
    out = tmp_path_factory.mktemp("odd_run") / "out"
    flags = ["--input", str(odd_folder), "--output", str(out), "--model", str(tiny_model)]
    flags += ["--tile-px", "128", "--overlap-px", "32", "--sites-per-part", "4"]
    return out, flags, call(commands.predict, *flags)


def test_bad_input_is_a_row_and_the_rest_is_done(odd_run: Any) -> None:
    out, _, ended = odd_run
    assert ended.printed == ["13 sites = 6 segmented + 2 empty + 5 failed (of these, done before: 0)"]
    assert ended.code == 3
    sites = {site["Metadata_Site"].rpartition("__")[2]: site for site in _table(out, "sites")}
    by_outcome = {
        outcome: {name for name, site in sites.items() if site["outcome"] == outcome}
        for outcome in ("segmented", "empty", "failed")
    }
    assert by_outcome["failed"] == set(FAILED)
    assert by_outcome["empty"] == set(EMPTY)
    assert by_outcome["segmented"] == {name.rpartition("/")[2] for name in READABLE}
    for name, stage in FAILED.items():
        site = sites[name]
        assert site["stage"] == stage
        assert f"{name}." in site["reason"]
        assert (site["n_nuclei"], site["height"]) == (None, None)
        # What cannot be decoded stays so; what cannot be fetched may come back.
        assert site["retryable"] == (stage == "read")
    assert "float32" in sites["float32"]["reason"]
    assert "empty" in sites["no_bytes"]["reason"]
    assert (sites["large"]["height"], sites["large"]["width"]) == (300, 170)


def test_images_of_every_kind_equal_a_plain_loop(
    odd_folder: Path, odd_run: Any, segment: Callable[..., np.ndarray]
) -> None:
    out, _, _ = odd_run
    # They are of several shapes, so from several places: each one's scale is its own.
    assert json.loads((out / "diameters.json").read_text()) == {"odd": None}
    masks = {path.stem: path for path in (out / "masks").rglob("*.png")}
    assert set(masks) == {name.replace("/", "__") for name in (*READABLE, *EMPTY)}
    for name in (*READABLE, *EMPTY):
        (image,) = odd_folder.glob(f"{name}.*")
        np.testing.assert_array_equal(_mask(masks[name.replace("/", "__")]), segment(image, **TILING))


@pytest.mark.parametrize(("allowed", "code"), [("4", 3), ("5", 0), ("38%", 3), ("39%", 0)])
def test_so_many_failures_may_be_allowed(odd_run: Any, call: Callable[..., Any], allowed: str, code: int) -> None:
    _, flags, _ = odd_run
    assert call(commands.predict, *flags, "--max-failed", allowed).code == code


def test_retry_failed_does_the_failed_ones_only(
    odd_folder: Path, odd_run: Any, call: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    out, flags, _ = odd_run
    before = _files(out, "masks", "nuclei", "sites")
    kept = {path: state for path, state in before.items() if "/failed-" not in path}
    assert len(kept) < len(before)
    # A plain rerun does not try them again.
    assert call(commands.predict, *flags).printed == [
        "13 sites = 6 segmented + 2 empty + 5 failed (of these, done before: 13)"
    ]
    assert _files(out, "masks", "nuclei", "sites") == before
    (told,) = [message for message in caplog.messages if "sites failed" in message]
    reasons = [site["reason"] for site in _table(out, "sites") if site["reason"]]
    assert told.startswith(f"5 sites failed, such as: {'; '.join(reasons[:3])}. All are in {out}/sites, ")

    shutil.copy(odd_folder / "grey8.png", odd_folder / "cut_short.png")
    (odd_folder / "gone.png").unlink()
    (odd_folder / "gone.png").symlink_to(odd_folder / "grey8.png")
    ended = call(commands.predict, *flags, "--retry-failed")
    assert ended.printed == ["13 sites = 8 segmented + 2 empty + 3 failed (of these, done before: 8)"]
    assert ended.code == 3
    after = _files(out, "masks", "nuclei", "sites")
    assert {path: after.get(path) for path in kept} == kept
    sites = _table(out, "sites")
    assert len({site["Metadata_Site"] for site in sites}) == len(sites) == 13
    assert {site["Metadata_Site"] for site in sites if site["outcome"] == "failed"} == {"float32", "no_bytes", "text"}
    (good, *mended) = (next((out / "masks").rglob(f"{name}.png")) for name in ("grey8", "cut_short", "gone"))
    assert [path.read_bytes() for path in mended] == [good.read_bytes()] * 2
    counts = pc.value_counts(read_parts(Location(str(out)), "nuclei", None).column("Metadata_Site")).to_pylist()
    by_site = {count["values"]: count["counts"] for count in counts}
    assert by_site["cut_short"] == by_site["gone"] == by_site["grey8"] == cv2.imread(str(good), -1).max()
