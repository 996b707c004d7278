"""Synthetic sets on disk: names, truth and bytes, whatever the blocks."""

from __future__ import annotations

import csv
from pathlib import Path
from string import ascii_uppercase
from typing import Any, get_args

import numpy as np
import pydantic
import pytest

from nucseg_ray.config_synthesize import SynthesizeSettings
from nucseg_ray.errors import NamingError, OutputError, OutputMismatchError, UsageError
from nucseg_ray.imaging.codecs import decode_image, decode_label_png
from nucseg_ray.imaging.masks import join_masks
from nucseg_ray.pipelines.synthesis import run_synthesize
from nucseg_ray.pipelines.synthetic_sites import draw_job, plan_plate, plan_training
from nucseg_ray.plates.planning import Choice, choose
from nucseg_ray.plates.schemes import SCHEMES
from nucseg_ray.plates.understanding import understand

SMALL: dict[str, Any] = {"shape_px": (64, 80), "nuclei": (2, 5), "radius_px": (4.0, 8.0)}


def _settings(output: Path, **wanted: Any) -> SynthesizeSettings:
    return SynthesizeSettings(output=str(output), **{**SMALL, **wanted})


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def _labels(path: Path) -> np.ndarray:
    return decode_label_png(path.read_bytes(), name=path.name)


@pytest.mark.parametrize(("kind", "count"), [("training", 7), ("plate", 24)])
def test_bytes_depend_neither_on_blocks_nor_on_ray(tmp_path: Path, ray_session: None, kind: str, count: int) -> None:
    settings = {blocks: _settings(tmp_path / str(blocks), kind=kind, images=7, wells=24) for blocks in (1, 3)}
    for blocks, wanted in settings.items():
        assert run_synthesize(wanted, blocks=blocks).n_sites == count
    one, three = (_contents(tmp_path / str(blocks)) for blocks in settings)
    assert one == three
    plan = plan_plate if kind == "plate" else plan_training
    plain_loop = {path: content for job in plan(settings[1]) for path, content in draw_job(job, settings[1])[1]}
    assert {path: one[path] for path in plain_loop} == plain_loop
    assert set(one) - set(plain_loop) == {"synthesis.json", "truth.csv" if kind == "plate" else "index.csv"}


def test_both_layouts_hold_the_same_training_set(tmp_path: Path, ray_session: None) -> None:
    account = run_synthesize(_settings(tmp_path / "bowl", layout="bowl", images=5, bit_depth=8))
    run_synthesize(_settings(tmp_path / "paired", layout="paired", images=5, bit_depth=8))
    index = _table(Path(account.table))
    assert index == _table(tmp_path / "paired/index.csv")
    assert [row["ImageId"] for row in index] == [f"synthetic-{n:05d}" for n in range(1, 6)]
    assert {row["modality"] for row in index} == {"synthetic"}
    assert len({row["mosaic_idx"] for row in index}) == 5
    for row in index:
        name = row["ImageId"]
        image = (tmp_path / "bowl" / name / "images" / f"{name}.png").read_bytes()
        assert image == (tmp_path / "paired/images" / f"{name}.png").read_bytes()
        assert decode_image(image, name=name).shape == (64, 80)
        assert decode_image(image, name=name).dtype == np.uint8
        files = sorted((tmp_path / "bowl" / name / "masks").iterdir())
        masks = [decode_image(path.read_bytes(), name=path.name) for path in files]
        joined = join_masks(masks, shape=(64, 80))  # type: ignore[arg-type]
        assert (joined.overlap_px, joined.n_empty) == (0, 0)
        np.testing.assert_array_equal(joined.labels, _labels(tmp_path / "paired/masks" / f"{name}.png"))
        assert joined.labels.max() == int(row["n_masks"]) == len(masks)
    assert account.n_nuclei == sum(int(row["n_masks"]) for row in index)


@pytest.mark.parametrize("scheme", ["imagexpress", "cellvoyager", "operetta", "bbbc"])
def test_a_plate_reads_back_in_its_scheme(tmp_path: Path, ray_session: None, scheme: str) -> None:
    sites = 1 if scheme == "bbbc" else 2
    account = run_synthesize(
        _settings(
            tmp_path,
            kind="plate",
            scheme=scheme,
            plate="P7",
            wells=24,
            sites_per_well=sites,
            empty_wells=3,
            channels=2,
        )
    )
    assert account.folder == str(tmp_path / "P7")
    images = [path for path in (tmp_path / "P7").rglob("*") if path.is_file()]
    read = {}
    for path in images:
        # As a run on the plate's own folder sees it, which gives the plate its name.
        name = SCHEMES[scheme].parse(str(path.relative_to(tmp_path / "P7")))
        assert name is not None
        assert name.plate is None
        read[(name.key("P7").path(".png"), name.channel)] = decode_image(path.read_bytes(), name=path.name)
    assert len(read) == len(images) == 24 * sites * 2
    rows = _table(tmp_path / "truth.csv")
    assert {row["truth"].removeprefix("truth/") for row in rows} == {key for key, _ in read}
    assert len({row["Metadata_Well"] for row in rows if row["n_nuclei"] == "0"}) == 3
    assert account.n_empty == 3 * sites
    # Sites differ, channels differ: no seed serves twice.
    assert len({image.tobytes() for image in read.values()}) == len(images)
    for row in rows:
        labels = _labels(tmp_path / row["truth"])
        assert labels.shape == (64, 80)
        assert labels.max() == int(row["n_nuclei"])


@pytest.mark.parametrize("plate_wells", [24, 1536])
@pytest.mark.parametrize("scheme", [name for name in SCHEMES if name != "images"])
def test_a_plate_is_understood_exactly(tmp_path: Path, scheme: str, plate_wells: int) -> None:
    sites = 1 if scheme == "bbbc" else 2
    settings = _settings(
        tmp_path,
        kind="plate",
        scheme=scheme,
        plate="P7",
        wells=plate_wells,
        sites_per_well=sites,
        empty_wells=0,
        channels=3,
    )
    jobs = plan_plate(settings)
    read = understand([path for job in jobs for path in job.images], root_name="elsewhere")
    assert (read.scheme.name, read.unmatched, len(read.channels)) == (scheme, (), 3)
    wells = [f"W{n:04d}" for n in range(1, plate_wells + 1)]
    if scheme != "cq1":
        rows, columns = {24: ("ABCD", 6), 1536: ([*ascii_uppercase, "AA", "AB", "AC", "AD", "AE", "AF"], 48)}[
            plate_wells
        ]
        wells = [f"{row}{column:02d}" for row in rows for column in range(1, columns + 1)]
    assert [(key.plate, key.well, key.site) for key in read.sites] == [
        ("P7", well, str(site)) for well in wells for site in range(1, sites + 1)
    ]
    assert [str(key) for key in read.sites] == [job.key for job in jobs]
    for number, channel in enumerate(SCHEMES[scheme].channels[:3]):
        manifest = choose(read, Choice(channel=channel)).manifest
        assert manifest.column("planes").to_pylist() == [[job.images[number]] for job in jobs]


def test_every_scheme_that_can_be_written_can_be_asked_for() -> None:
    choices = get_args(SynthesizeSettings.model_fields["scheme"].annotation)
    assert list(choices) == [name for name, scheme in SCHEMES.items() if scheme.write is not None and name != "images"]
    assert all(len(SCHEMES[name].channels) == 4 for name in choices)


def test_the_first_channel_shows_the_nuclei(tmp_path: Path, ray_session: None) -> None:
    run_synthesize(_settings(tmp_path, kind="plate", wells=24, channels=2, empty_wells=0))
    for row in _table(tmp_path / "truth.csv"):
        nuclei = _labels(tmp_path / row["truth"]) > 0
        (file,) = (tmp_path / "synthetic").glob(f"Channel1-*-{row['Metadata_Well'][0]}-{row['Metadata_Well'][1:]}.tif")
        image = decode_image(file.read_bytes(), name=file.name)
        assert image[nuclei].mean() > 1.5 * image[~nuclei].mean()


def test_seed_plate_and_kind_make_other_pictures(tmp_path: Path) -> None:
    """Else a network could be scored on a plate that it was trained on."""
    plates = [
        _settings(tmp_path, kind="plate", seed=seed, plate=plate) for seed, plate in ((0, "a"), (1, "a"), (0, "b"))
    ]
    drawn = [dict(draw_job(plan_plate(settings)[0], settings)[1]) for settings in plates]
    training = _settings(tmp_path)
    drawn += [dict(draw_job(job, training)[1]) for job in plan_training(training)[:2]]
    contents = [next(iter(files.values())) for files in drawn]
    assert len(set(contents)) == 5


def test_a_second_run_writes_the_same_and_other_settings_are_refused(tmp_path: Path, ray_session: None) -> None:
    settings = _settings(tmp_path / "out", images=3)
    account = run_synthesize(settings)
    before = _contents(tmp_path / "out")
    (tmp_path / "out/index.csv").unlink()
    assert run_synthesize(settings) == account
    assert _contents(tmp_path / "out") == before
    with pytest.raises(OutputMismatchError, match=r"made with other settings.*delete"):
        run_synthesize(_settings(tmp_path / "out", images=2))
    assert _contents(tmp_path / "out") == before


def test_an_output_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(OutputMismatchError, match="found other files"):
        run_synthesize(_settings(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, ray_session: None) -> None:
    settings = _settings(tmp_path, images=3)
    run_synthesize(settings)
    image = tmp_path / "synthetic-00002/images/synthetic-00002.png"
    image.unlink()
    image.mkdir()
    with pytest.raises(OutputError, match=r"synthetic-00002\.png: cannot be written"):
        run_synthesize(settings)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"kind": "plate", "scheme": "bbbc", "sites_per_well": 2}, UsageError),
        ({"kind": "plate", "plate": "../up"}, (UsageError, NamingError)),
        ({"nuclei": (0, 900)}, UsageError),
        ({"radius_px": (9.0, 4.0)}, UsageError),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_anything_is_written(
    tmp_path: Path, wrong: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        run_synthesize(_settings(tmp_path / "out", **wrong))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "wrong",
    [{"nuclei": (5, 2)}, {"empty_wells": 97}, {"wells": 95}, {"bit_depth": 12}, {"kind": "slide"}, {"imags": 3}],
)
def test_wrong_settings_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError):
        _settings(tmp_path, **wrong)
