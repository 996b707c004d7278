"""What a run looks at before it begins: it refuses what would fail for every site, and leaves nothing behind."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nucseg_ray import commands
from nucseg_ray.config_predict import PredictSettings
from nucseg_ray.errors import ModelError, NucsegError, OutputError, WeightsError
from nucseg_ray.imaging.labelling import Labelling
from nucseg_ray.model.bundle import read_bundle, write_bundle
from nucseg_ray.model.predictor import choose_form
from nucseg_ray.pipelines import preflight
from nucseg_ray.pipelines.batch import decide
from nucseg_ray.pipelines.inference import run_predict
from nucseg_ray.pipelines.models import ship
from nucseg_ray.pipelines.network import ActorPool
from nucseg_ray.pipelines.preflight import PROBE, bytes_needed, check_disk, run_preflight, run_seconds, spread
from nucseg_ray.pipelines.site_image import Reading
from nucseg_ray.pipelines.trial import Order, Trial, answer_probe, answer_to, try_site
from nucseg_ray.plates.planning import Choice, choose
from nucseg_ray.plates.understanding import understand
from nucseg_ray.storage.atomic import write_bytes
from nucseg_ray.storage.fetch import fetch_bytes
from nucseg_ray.storage.listing import list_files
from nucseg_ray.storage.locations import Location

# The order in which the sites of a plate of 24 wells are tried.
TRIED = ["B06", "A06", "D01", "A01", "D06"]


def _settings(plate: Path, model: Path, out: Path | str, **wanted: Any) -> PredictSettings:
    return PredictSettings(input=str(plate), output=str(out), model=str(model), **wanted)


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _image(plate: Path, well: str) -> Path:
    (image,) = plate.glob(f"*-{well[0]}-{well[1:]}.tif")
    return image


@pytest.fixture
def own_plate(plate: Path, tmp_path: Path) -> Path:
    """A copy of the plate, to be damaged."""
    return Path(shutil.copytree(plate / "P1", tmp_path / "P1"))


@pytest.fixture(scope="module")
def misfit(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, in order by its checksums, whose weights are those of another network."""
    bundle = read_bundle(tiny_model)
    weights = bundle.weights()
    name = max(weights, key=lambda name: weights[name].size)
    folder = tmp_path_factory.mktemp("misfit") / "model"
    write_bundle(
        folder,
        {**weights, name: weights[name][..., :-1]},
        architecture=bundle.architecture,
        normalisation=bundle.normalisation,
        diameter_px=bundle.diameter_px,
        labels=bundle.labels,
        training={},
    )
    return folder


def _order(plate: Path, model: Path, probe: Path, **changed: Any) -> Order:
    root, bundle = Location(str(plate)), read_bundle(model)
    form = choose_form(bundle, runtime="auto", use_gpu=False)
    order = Order(
        rows=choose(understand((path for path, _ in list_files(root)), root_name=root.name), Choice()).manifest,
        reading=Reading(root),
        probe=Location(str(probe)),
        model=ship(bundle),
        actors=ActorPool(form=form, actors=1, cpus=1.0, threads=2, use_gpu=False),
        labelling=Labelling(bundle.labels),
    )
    return replace(order, **changed)


def test_one_line_says_what_was_tried(
    plate: Path, tiny_model: Path, tmp_path: Path, segment: Callable[..., np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        account = run_predict(_settings(plate / "P1", tiny_model, tmp_path / "out"))
    assert str(account) == "24 sites = 22 segmented + 2 empty + 0 failed (of these, done before: 0)"
    (line,) = [message for message in caplog.messages if message.startswith("preflight")]
    image = _image(plate / "P1", TRIED[0])
    told = re.fullmatch(
        rf"preflight took (\d+\.\d) s: {re.escape(str(tmp_path))}/out can be written, {re.escape(image.name)} went "
        rf"through every stage \({segment(image).max()} nuclei\); 24 sites like it take about \d+ s on 2 CPUs and "
        r"0 MB, ([\d,]+) MB are free",
        line,
    )
    assert told, line
    free = shutil.disk_usage(tmp_path).free / 1e6
    assert float(told[2].replace(",", "")) == pytest.approx(free, rel=0.2)
    assert not list(tmp_path.rglob(f"{PROBE}*"))


def test_a_rerun_with_nothing_to_do_and_one_told_not_to_try_nothing(
    plate: Path, tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        run_predict(_settings(plate / "P1", tiny_model, tmp_path / "out", preflight=False))
        again = run_predict(_settings(plate / "P1", tiny_model, tmp_path / "out"))
    assert again.done_before == 24
    assert "preflight" not in caplog.text


def test_weights_that_do_not_fit_are_refused_and_the_output_stays_free(
    plate: Path, tiny_model: Path, misfit: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    out = tmp_path / "out"
    ended = call(commands.predict, "--input", plate / "P1", "--output", out, "--model", misfit)
    assert (ended.code, ended.printed, len(ended.said)) == (2, [], 1)
    assert ended.said[0].startswith("error: preflight, stage model: could not load the model: ")
    assert _contents(out) == {}
    # The refused model has no claim on the output.
    assert run_predict(_settings(plate / "P1", tiny_model, out)).segmented == 22


def test_a_model_that_fails_costs_no_results_that_are_there(
    plate: Path, tiny_model: Path, misfit: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run_predict(_settings(plate / "P1", tiny_model, out))
    before = _contents(out)
    assert len(before) > 24
    with pytest.raises(WeightsError, match="stage model"):
        run_predict(_settings(plate / "P1", misfit, out, overwrite=True))
    assert _contents(out) == before


def test_an_output_that_is_a_file_is_refused(plate: Path, tiny_model: Path, tmp_path: Path, ray_session: None) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OutputError, match="out"):
        run_predict(_settings(plate / "P1", tiny_model, tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "mine"


def test_an_output_where_no_file_can_be_written_is_refused(
    plate: Path, tiny_model: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    (tmp_path / "out" / PROBE / "in the way").mkdir(parents=True)
    ended = call(commands.predict, "--input", plate / "P1", "--output", tmp_path / "out", "--model", tiny_model)
    assert (ended.code, ended.printed) == (2, [])
    assert re.search(rf"error: .*{PROBE}: cannot be written, a folder stands where the file should go", ended.said[0])
    assert not (tmp_path / "out" / "run.json").exists()


def test_a_worker_that_does_not_see_the_output_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=rf"{os.uname().nodename}; name an --output that every node sees"):
        answer_probe(Location(str(tmp_path / PROBE)))
    assert list(tmp_path.iterdir()) == []
    probe = Location(str(tmp_path / PROBE))
    write_bytes(probe, b"question")
    answer_probe(probe)
    assert fetch_bytes(probe) == answer_to(b"question") != b"question"


def test_results_that_cannot_fit_are_refused_and_a_tight_disk_is_told(
    plate: Path, tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(preflight, "free_bytes", lambda location: 50_000)
    with pytest.raises(OutputError, match=r"out: expected room for about .* found 0 MB free; free space"):
        run_predict(_settings(plate / "P1", tiny_model, out))
    assert _contents(out) == {}
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        check_disk(Location(str(out)), needed=50_000_000, free=100_000_000)
        assert caplog.messages == []
        check_disk(Location(str(out)), needed=50_000_001, free=100_000_000)
        check_disk(Location(str(out)), needed=100_000_000, free=100_000_000)
    assert len(caplog.messages) == 2
    assert "room is tight: about 50 MB are needed" in caplog.messages[0] and "100 MB are free" in caplog.messages[0]
    with pytest.raises(OutputError):
        check_disk(Location(str(out)), needed=100_000_001, free=100_000_000)


@pytest.mark.parametrize("masks", ["both", "none"])
def test_the_estimate_of_room_is_near_what_a_run_takes(
    plate: Path, tiny_model: Path, tmp_path: Path, masks: str, ray_session: None
) -> None:
    settings = _settings(plate / "P1", tiny_model, tmp_path / "out", masks=masks, sites_per_part=6, preflight=False)
    run_predict(settings)
    taken = sum(
        path.stat().st_blocks * 512
        for name in ("masks", "nuclei", "sites")
        for path in (tmp_path / "out" / name).rglob("*")
        if path.is_file()
    )
    probe = Location(str(tmp_path / PROBE))
    write_bytes(probe, b"?")
    order = _order(plate / "P1", tiny_model, tmp_path / PROBE)
    trial = try_site(replace(order, rows=order.rows.take(spread(24))))
    assert isinstance(trial, Trial)
    assert 0.5 < bytes_needed(trial, settings=settings, sites=24) / taken < 2


def test_sites_that_cannot_be_read_are_passed_over(
    own_plate: Path, tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for well in TRIED[:2]:
        _image(own_plate, well).write_bytes(b"not an image")
    with caplog.at_level(logging.INFO):
        account = run_predict(_settings(own_plate, tiny_model, tmp_path / "out"))
    assert (account.sites, account.failed) == (24, 2)
    (line,) = [message for message in caplog.messages if message.startswith("preflight")]
    assert f"{_image(own_plate, TRIED[2]).name} went through every stage" in line


def test_where_none_can_be_read_the_run_says_so_and_gives_its_rows(
    own_plate: Path, tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = sorted(own_plate.glob("*.tif"))
    for image in images:
        image.write_bytes(b"not an image")
    with caplog.at_level(logging.INFO):
        account = run_predict(_settings(own_plate, tiny_model, tmp_path / "out"))
    assert str(account) == "24 sites = 0 segmented + 0 empty + 24 failed (of these, done before: 0)"
    (record,) = [record for record in caplog.records if "preflight" in record.message]
    assert record.levelno == logging.WARNING
    assert "5 of 24 sites tried, none could be read" in record.message
    assert _image(own_plate, TRIED[0]).name in record.message


def test_where_none_can_be_read_a_bad_model_is_refused_all_the_same(
    own_plate: Path, misfit: Path, tmp_path: Path, ray_session: None
) -> None:
    for image in own_plate.glob("*.tif"):
        image.write_bytes(b"not an image")
    with pytest.raises(WeightsError, match="stage model"):
        run_predict(_settings(own_plate, misfit, tmp_path / "out"))


def test_an_output_on_s3_is_tried_there(
    plate: Path, tiny_model: Path, bucket: str, caplog: pytest.LogCaptureFixture, ray_session: None
) -> None:
    out = Location(f"{bucket}/out")
    with caplog.at_level(logging.INFO):
        account = run_predict(_settings(plate / "P1", tiny_model, out.uri))
    assert (account.sites, account.failed) == (24, 0)
    (line,) = [message for message in caplog.messages if message.startswith("preflight")]
    assert f"{out} can be written" in line
    assert line.endswith("on 2 CPUs")  # nobody knows how much room a bucket has
    left = out.fs.find(out.path)
    assert len([name for name in left if name.endswith(".png")]) == 24
    assert not [name for name in left if PROBE in name]


class _Labels:
    """Makes of the maps what a test wants."""

    def __init__(self, make: Callable[[np.ndarray], np.ndarray]) -> None:
        self.label = make


def _fail(maps: np.ndarray, *, scale: float) -> np.ndarray:
    raise RuntimeError("no such nucleus")


@pytest.mark.parametrize(
    ("make", "kind", "told"),
    [
        (_fail, NucsegError, "stage label: could not find the nuclei of .*: RuntimeError: no such nucleus; train"),
        (
            lambda maps, scale: np.zeros((3, 3), np.int32),
            NucsegError,
            r"stage measure: .*found \(128, 128\) and \(3, 3\)",
        ),
        (
            lambda maps, scale: np.arange(128 * 128 * 5).reshape(640, 128)[:128].astype(np.int32) * 5,
            NucsegError,
            "stage encode",
        ),
    ],
)
def test_the_stage_that_fails_is_named(
    plate: Path, tiny_model: Path, tmp_path: Path, make: Any, kind: type[Exception], told: str
) -> None:
    write_bytes(Location(str(tmp_path / PROBE)), b"?")
    error = try_site(_order(plate / "P1", tiny_model, tmp_path / PROBE, labelling=_Labels(make)))
    assert isinstance(error, kind)
    assert re.search(told, str(error)), error


def test_a_network_that_fails_is_told_with_the_image(plate: Path, tiny_model: Path, tmp_path: Path) -> None:
    write_bytes(Location(str(tmp_path / PROBE)), b"?")
    order = _order(plate / "P1", tiny_model, tmp_path / PROBE)
    # Tiles that overlap by more than themselves: what a wrong setting does, for every image alike.
    error = try_site(replace(order, actors=replace(order.actors, tile_px=64, overlap_px=128)))
    assert isinstance(error, ModelError)
    image = _image(plate / "P1", "A01").name
    assert f"stage network: could not run the network on the image of {image}: predict: " in str(error)


def test_a_process_that_dies_is_told(plate: Path, tiny_model: Path, tmp_path: Path, ray_session: None) -> None:
    class Deadly:
        """Ends the process that loads it, as a library's crash or a lack of memory does."""

        def folder(self) -> Path:
            os._exit(1)

    out = tmp_path / "out"
    batch = decide(_settings(plate / "P1", tiny_model, out))
    with pytest.raises(NucsegError, match="the process that tried one site ended .*--no-preflight"):
        run_preflight(replace(batch, files=Deadly()), batch.planned.manifest)
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 24, 1_000_000])
def test_the_sites_tried_are_spread_and_distinct(rows: int) -> None:
    tried = spread(rows)
    assert len(set(tried)) == len(tried) == min(rows, 5)
    assert tried[0] == (rows - 1) // 2
    assert min(tried) == 0 and max(tried) == rows - 1


def test_the_slower_side_sets_the_time() -> None:
    trial = Trial(site="a", predict_s=0.2, at_a_time=2, other_s=0.05)
    pool = ActorPool(form="int8", actors=1, cpus=1.0, threads=2, use_gpu=False)
    # Two processors: the network keeps both busy, so the rest comes on top.
    assert run_seconds(trial, actors=pool, sites=100, cpus=2) == pytest.approx(22.5)
    # Eight: the one actor is what is waited for; four actors share its work.
    assert run_seconds(trial, actors=pool, sites=100, cpus=8) == pytest.approx(20)
    assert run_seconds(trial, actors=replace(pool, actors=4), sites=100, cpus=16) == pytest.approx(5)
    # On a GPU the rest may be slower than the network.
    slow = replace(trial, predict_s=0.01, other_s=0.3)
    assert run_seconds(slow, actors=replace(pool, use_gpu=True), sites=100, cpus=4) == pytest.approx(10)
