"""What a training may do to an output that holds something: resume, refuse, or say that all is done."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nucseg_ray import commands
from nucseg_ray.config import TrainSettings
from nucseg_ray.errors import MissingInputError, OutputError, OutputMismatchError
from nucseg_ray.imaging.labels import ForegroundLabels
from nucseg_ray.imaging.normalise import FullRange
from nucseg_ray.model.architecture import Architecture
from nucseg_ray.model.bundle import Bundle, write_bundle
from nucseg_ray.pipelines.training import run_train
from nucseg_ray.pipelines.training_output import (
    CHECKPOINTS,
    SNAPSHOT,
    TrainingRecord,
    earlier_training,
    fingerprint,
    finished_scores,
    publish_bundle,
    record_training,
)
from nucseg_ray.storage.atomic import write_bytes, write_json
from nucseg_ray.storage.fetch import fetch_bytes
from nucseg_ray.storage.listing import list_files
from nucseg_ray.storage.locations import Location
from nucseg_ray.storage.training_sets import Sample

RECORD = TrainingRecord(run="run-1", train="aaaa", validation="bbbb", mlflow_run="cccc")


@pytest.fixture(params=["local", "s3"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    if request.param == "local":
        return Location(str(tmp_path / "out"))
    return Location(request.getfixturevalue("bucket")) / "out"


def _settings(output: Location, **wanted: Any) -> TrainSettings:
    return TrainSettings(**{"data": "set", "output": output.uri, "seed": 3, **wanted})


def _broken_off(output: Location, **wanted: Any) -> None:
    """Leave what a training leaves that ended after its first checkpoint."""
    record_training(output, _settings(output, **wanted), RECORD)
    write_bytes(output / CHECKPOINTS / RECORD.run / SNAPSHOT, b"{}")


def test_in_a_new_output_a_training_begins(output: Location) -> None:
    assert finished_scores(output, _settings(output)) is None
    assert earlier_training(output, _settings(output)) is None


def test_a_training_before_its_first_checkpoint_may_begin_anew(output: Location) -> None:
    record_training(output, _settings(output), RECORD)
    assert earlier_training(output, _settings(output, seed=4)) is None


@pytest.mark.parametrize("begun", [False, True])
def test_nothing_to_resume_is_an_error(output: Location, begun: bool) -> None:
    if begun:
        record_training(output, _settings(output), RECORD)
    with pytest.raises(MissingInputError, match=r"out: nothing to resume, no training finished an epoch there"):
        earlier_training(output, _settings(output, resume=True))


def test_a_broken_off_training_is_not_silently_begun_anew(output: Location) -> None:
    _broken_off(output)
    with pytest.raises(OutputError, match=r"out: a training was broken off there; go on with it with --resume"):
        earlier_training(output, _settings(output))


def test_a_broken_off_training_goes_on(output: Location) -> None:
    _broken_off(output)
    assert earlier_training(output, _settings(output, resume=True)) == RECORD


# One other value of every setting there is; a new setting must be sorted into one of these.
MAY_CHANGE = {
    "data": "moved",
    "index": "index.csv",
    "validation_data": "set2",
    "epochs": 21,
    "patience": 11,
    "workers": 2,
    "use_gpu": True,
    "cpus_per_worker": 0.5,
    "threads_per_worker": 1,
    "max_restarts": 4,
    "mlflow": "folder",
}
DECIDE = {
    "folds": 5,
    "fold": 1,
    "validation_fraction": 0.3,
    "maps": "foreground",
    "normalisation": "full-range",
    "encoder_weights": "none",
    "crops_per_epoch": 100,
    "crop_px": 128,
    "batch_size": 8,
    "learning_rate": 1e-4,
    "finetune_epochs": 3,
    "encoder_rate": 0.2,
    "keep": "last",
    "nucleus_diameter_px": 20.0,
    "seed": 4,
    "pictures": 1,
}


def test_every_setting_is_known_to_decide_or_not() -> None:
    assert {*MAY_CHANGE, *DECIDE, "output", "resume"} == set(TrainSettings.model_fields)


def test_where_and_how_long_a_training_runs_may_change(tmp_path: Path) -> None:
    output = Location(str(tmp_path))
    _broken_off(output)
    assert earlier_training(output, _settings(output, resume=True, **MAY_CHANGE)) == RECORD


@pytest.mark.parametrize("name", DECIDE)
def test_another_setting_that_decides_the_result_is_named(tmp_path: Path, name: str) -> None:
    output = Location(str(tmp_path))
    _broken_off(output)
    before, now = getattr(_settings(output), name), DECIDE[name]
    with pytest.raises(OutputMismatchError) as raised:
        earlier_training(output, _settings(output, resume=True, **{name: now}))
    told = f"begun with other settings (--{name.replace('_', '-')} {before} there, {now} asked for)"
    assert told in str(raised.value)


def test_with_fine_tuning_the_epochs_before_it_stay_as_many(tmp_path: Path) -> None:
    output = Location(str(tmp_path))
    _broken_off(output, finetune_epochs=3)
    more = _settings(output, resume=True, finetune_epochs=3, epochs=21)
    with pytest.raises(OutputMismatchError, match="--epochs 20 there, 21 asked for"):
        earlier_training(output, more)


def test_a_setting_younger_than_the_record_counts_as_its_default(tmp_path: Path) -> None:
    output = Location(str(tmp_path))
    _broken_off(output)
    stored = _settings(output).model_dump()
    del stored["maps"]
    write_json(output / "settings.json", stored)
    assert earlier_training(output, _settings(output, resume=True)) == RECORD
    with pytest.raises(OutputMismatchError, match="--maps centres there, foreground asked for"):
        earlier_training(output, _settings(output, resume=True, maps="foreground"))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"{", "training.json: not readable as JSON"),
        (b"[]", "training.json: expected an object"),
        (b'{"format": 1, "run": "run-1"}', "training.json: expected format 2"),
    ],
)
def test_a_record_that_is_not_in_order_is_named(tmp_path: Path, content: bytes, told: str) -> None:
    output = Location(str(tmp_path))
    _broken_off(output)
    write_bytes(output / "training.json", content)
    with pytest.raises(OutputError, match=told):
        earlier_training(output, _settings(output, resume=True))


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    variant = ForegroundLabels()
    return write_bundle(
        tmp_path / "made",
        {"kernel": np.arange(6, dtype=np.float32)},
        architecture=Architecture(map_names=variant.map_names),
        normalisation=FullRange(),
        diameter_px=30.0,
        labels=variant,
        training={},
    )


def test_a_published_bundle_is_the_one_that_was_made(output: Location, bundle: Bundle) -> None:
    publish_bundle(output, bundle)
    assert {name: fetch_bytes(output / name) for name, _ in list_files(output)} == {
        path.name: path.read_bytes() for path in bundle.folder.iterdir()
    }


def test_a_bundle_that_is_not_published_whole_is_no_bundle(tmp_path: Path, bundle: Bundle) -> None:
    (tmp_path / "out" / "weights.npz").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"out/weights.npz: cannot be written"):
        publish_bundle(Location(str(tmp_path / "out")), bundle)
    assert not (tmp_path / "out/model.json").exists()


def _sample(image_id: str, kind: str = "image") -> Sample:
    return Sample(image_id, f"{image_id}.png", (), one_mask=True, group=image_id, kind=kind)


def test_the_fingerprint_tells_images_and_kinds_apart() -> None:
    sides = [
        [_sample("a"), _sample("b")],
        [_sample("a")],
        [_sample("a"), _sample("c")],
        [_sample("a"), _sample("b", kind="rare")],
    ]
    assert len({fingerprint(side) for side in sides}) == len(sides)
    assert fingerprint(sides[0]) == fingerprint([_sample("a"), _sample("b")])


def test_other_images_are_refused(tiny_set: Path, tmp_path: Path, call: Callable[..., Any]) -> None:
    output = Location(str(tmp_path / "out"))
    _broken_off(output, data=str(tiny_set), encoder_weights="none")
    ended = call(
        commands.train, "--data", tiny_set, "--output", output, "--encoder-weights", "none", "--seed", "3", "--resume"
    )
    assert (ended.code, ended.printed, len(ended.said)) == (2, [], 1)
    assert "the images to train on are not those that the training began with" in ended.said[0]


def _copy(model: Path, folder: Path) -> TrainSettings:
    """Copy what decides whether a training is finished; give the settings it had."""
    folder.mkdir()
    for name in ("model.json", "settings.json", "training.json"):
        shutil.copy(model / name, folder)
    stored = json.loads((folder / "settings.json").read_text())
    return TrainSettings(**{**stored, "output": str(folder), "resume": True})


def test_a_finished_training_says_so(tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = _copy(tiny_model, tmp_path / "model")
    before = (tmp_path / "model/model.json").read_bytes()
    with caplog.at_level(logging.INFO, logger="nucseg_ray"):
        scores = run_train(settings)
    assert scores == json.loads(before)["metrics"]
    assert [record.getMessage() for record in caplog.records if record.name.startswith("nucseg_ray")] == [
        f"nothing to do: the training in {tmp_path / 'model'} is finished"
    ]
    assert (tmp_path / "model/model.json").read_bytes() == before
    assert len(list((tmp_path / "model").iterdir())) == 3


def test_a_finished_training_does_not_go_on_for_longer(tiny_model: Path, tmp_path: Path) -> None:
    settings = _copy(tiny_model, tmp_path / "model")
    with pytest.raises(OutputError, match="its training is finished, with --epochs 3; a finished model is not trained"):
        run_train(settings.model_copy(update={"epochs": 4}))
    with pytest.raises(OutputMismatchError, match="--seed 0 there, 5 asked for"):
        run_train(settings.model_copy(update={"seed": 5}))
