"""Training runs with real Ray processes: what they leave behind, and that neither chance nor a death changes it."""

from __future__ import annotations

import csv
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from nucseg_ray import commands
from nucseg_ray.config import TrainSettings
from nucseg_ray.model.bundle import REFERENCE, read_bundle
from nucseg_ray.pipelines.training import run_train

# As tensorboard/ names the columns of history.csv.
TAGS = {
    "train_loss": "loss/train",
    "validation_loss": "loss/validation",
    "validation_ap50": "validation/AP@0.5",
    "validation_score": "validation/score",
    "learning_rate": "learning_rate",
}
COLUMNS = {
    "epoch",
    "train_loss",
    "validation_loss",
    "validation_ap50",
    "validation_score",
    "learning_rate",
    "seconds",
}
EPOCHS = 4
SHORT: dict[str, Any] = {
    "encoder_weights": "none",
    "epochs": EPOCHS,
    "crops_per_epoch": 240,
    "crop_px": 64,
    "nucleus_diameter_px": 30.0,
    "batch_size": 8,
    "learning_rate": 3e-3,
    # In which order several threads add up a sum is nowhere promised.
    "threads_per_worker": 1,
    "patience": EPOCHS,
    "pictures": 1,
    "seed": 11,
}
DEADLINE_S = 300.0


def _history(model: Path) -> list[dict[str, float]]:
    with (model / "history.csv").open(newline="") as stream:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(stream)]


def test_the_history_has_a_row_an_epoch(tiny_model: Path) -> None:
    history = _history(tiny_model)
    planned = json.loads((tiny_model / "settings.json").read_text())["epochs"]
    assert set(history[0]) >= COLUMNS
    assert [row["epoch"] for row in history] == list(range(1, planned + 1))
    assert all(np.isfinite(list(row.values())).all() for row in history)
    assert history[-1]["train_loss"] < history[0]["train_loss"] / 2
    assert history[-1]["learning_rate"] < history[0]["learning_rate"]


def test_tensorboard_has_a_file_an_epoch_with_its_row_of_the_history(tiny_model: Path) -> None:
    import tensorflow as tf

    history, found = _history(tiny_model), []
    for path in sorted((tiny_model / "tensorboard").iterdir()):
        records = [tf.compat.v1.Event.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(path))]
        found += [event for event in records if event.summary.value]
    assert [event.step for event in found] == [row["epoch"] for row in history]
    for event, row in zip(found, history, strict=True):
        values = {value.tag: value.simple_value for value in event.summary.value}
        assert values == {tag: np.float32(row[column]) for column, tag in TAGS.items()}
        assert event.wall_time == pytest.approx(row["ended_at"])


@pytest.mark.parametrize("picture", ["learning_curves.png", "before_after.png", "validation/ap_curve.png"])
def test_pictures_decode(tiny_model: Path, picture: str) -> None:
    pixels = cv2.imread(str(tiny_model / picture))
    assert pixels is not None and min(pixels.shape[:2]) > 100
    assert pixels.std() > 0


def test_scores_are_of_the_validation_images_and_in_the_bundle(tiny_model: Path, tiny_set: Path) -> None:
    scores = json.loads((tiny_model / "validation/scores.json").read_text())
    assert json.loads((tiny_model / "model.json").read_text())["metrics"][REFERENCE] == scores
    with (tiny_model / "validation/images.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == scores["all"]["images"] == 5  # a fifth of 24
    assert {row["image_id"] for row in rows} <= {path.stem for path in (tiny_set / "images").iterdir()}
    assert sum(int(row["nuclei"]) for row in rows) == scores["all"]["nuclei"]
    assert scores["all"]["ap"][0] > 0.3


def test_the_bundle_says_where_it_came_from(tiny_model: Path, tiny_set: Path) -> None:
    bundle = read_bundle(tiny_model)
    settings = json.loads((tiny_model / "settings.json").read_text())
    assert settings["data"] == str(tiny_set)
    assert bundle.training["settings"] == settings
    assert bundle.training["images"] == 19
    assert bundle.labels.map_names == bundle.architecture.map_names == ("nucleus", "centre_dy", "centre_dx")
    assert len(list((tiny_model / "checkpoints").glob("*/checkpoint_*/state.npz"))) == 1


def _refused(ended: Any, told: str) -> None:
    assert (ended.code, ended.printed, len(ended.said)) == (2, [], 1)
    assert ended.said[0].startswith("error: ") and told in ended.said[0]


def test_a_model_is_not_written_over(tiny_model: Path, tiny_set: Path, call: Callable[..., Any]) -> None:
    before = (tiny_model / "model.json").read_bytes()
    _refused(
        call(commands.train, "--data", tiny_set, "--output", tiny_model, "--encoder-weights", "none"),
        "there is a model already; name another --output",
    )
    assert (tiny_model / "model.json").read_bytes() == before


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--fold", "3"), "--fold 3: no image is in it; found no fold column (give --index, or cut some: --folds)"),
        (("--workers", "2"), "leave less than one for the tasks that read images"),
        (("--workers", "3", "--cpus-per-worker", "0.1"), "--batch-size 16: not divisible by --workers 3"),
        (("--workers", "8", "--cpus-per-worker", "0.1"), "expected a validation image for each, found 5"),
        (("--crops-per-epoch", "8"), "--crops-per-epoch 8: less than one batch of --batch-size 16"),
        (("--use-gpu",), "the cluster has 0 GPUs"),
        (("--index", "nowhere.csv"), "nowhere.csv: expected a file, found none"),
        (
            ("--encoder-weights", "nowhere.h5"),
            "--encoder-weights nowhere.h5: no such file or model; expected imagenet, none, pretrained, or a path",
        ),
        (("--encoder-weights", "."), "--encoder-weights .: no such file or model; expected imagenet, none, pretrained"),
        (("--crop-px", "100"), "--crop-px: expected a multiple of 32, found '100'"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_line(
    tiny_set: Path, tmp_path: Path, call: Callable[..., Any], flags: tuple[str, ...], told: str
) -> None:
    weights = () if "--encoder-weights" in flags else ("--encoder-weights", "none")
    _refused(call(commands.train, "--data", tiny_set, "--output", tmp_path / "model", *weights, *flags), told)
    assert not (tmp_path / "model/model.json").exists()


def test_weights_that_are_not_mobilenets_are_refused(tiny_set: Path, tmp_path: Path, call: Callable[..., Any]) -> None:
    (tmp_path / "weights.h5").write_bytes(b"\x89HDF\r\n\x1a\n and no more")
    flags = ["--data", tiny_set, "--output", tmp_path / "model", "--encoder-weights", tmp_path / "weights.h5"]
    _refused(call(commands.train, *flags), "MobileNetV2 weights could not be loaded")


def test_a_broken_image_is_named_before_training(tiny_set: Path, tmp_path: Path, call: Callable[..., Any]) -> None:
    for name in ("images", "masks"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for path in sorted((tiny_set / name).iterdir())[:4]:
            (tmp_path / "set" / name / path.name).write_bytes(path.read_bytes())
    broken = sorted((tmp_path / "set/images").iterdir())[2]
    broken.write_bytes(broken.read_bytes()[:500])
    flags = ["--data", tmp_path / "set", "--output", tmp_path / "model", "--encoder-weights", "none"]
    _refused(call(commands.train, *flags), f"images/{broken.name}")


@pytest.fixture(scope="module")
def undisturbed(tiny_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short training by one worker that nothing happened to."""
    model = tmp_path_factory.mktemp("undisturbed") / "model"
    run_train(TrainSettings(data=str(tiny_set), output=str(model), **SHORT))
    return model


def _assert_same_training(one: Path, other: Path) -> None:
    first, second = read_bundle(one).weights(), read_bundle(other).weights()
    assert set(first) == set(second)
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name], err_msg=name)
    for name in ("train_loss", "validation_loss", "validation_score"):
        assert [row[name] for row in _history(one)] == [row[name] for row in _history(other)]
    for picture in ("before_after.png", "validation/images.csv"):
        assert (one / picture).read_bytes() == (other / picture).read_bytes()


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights(tiny_set: Path, tmp_path: Path, undisturbed: Path) -> None:
    run_train(TrainSettings(data=str(tiny_set), output=str(tmp_path / "model"), **SHORT))
    _assert_same_training(tmp_path / "model", undisturbed)


@pytest.mark.slow
def test_another_seed_gives_other_weights(tiny_set: Path, tmp_path: Path, undisturbed: Path) -> None:
    run_train(TrainSettings(data=str(tiny_set), output=str(tmp_path / "model"), **{**SHORT, "seed": 12, "epochs": 1}))
    first, second = read_bundle(tmp_path / "model").weights(), read_bundle(undisturbed).weights()
    assert any((first[name] != second[name]).any() for name in first)


@pytest.mark.slow
def test_two_workers_come_to_a_similar_loss(tiny_set: Path, tmp_path: Path, undisturbed: Path) -> None:
    settings = {**SHORT, "workers": 2, "cpus_per_worker": 0.5}
    scores = run_train(TrainSettings(data=str(tiny_set), output=str(tmp_path / "model"), **settings))
    one, two = _history(undisturbed), _history(tmp_path / "model")
    assert [row["epoch"] for row in two] == list(range(1, EPOCHS + 1))
    assert [row["learning_rate"] for row in two] == pytest.approx([row["learning_rate"] for row in one])
    # The same weights and crops to begin with; but each worker normalises by its half of a batch, so they drift apart.
    assert two[0]["train_loss"] == pytest.approx(one[0]["train_loss"], rel=0.1)
    assert two[-1]["train_loss"] == pytest.approx(one[-1]["train_loss"], rel=0.4)
    assert two[-1]["validation_loss"] == pytest.approx(one[-1]["validation_loss"], abs=0.2)
    assert {group["all"]["images"] for group in scores.values()} == {5}
    assert scores[REFERENCE]["all"]["ap"][0] > 0.3


@pytest.mark.slow
def test_a_killed_worker_costs_nothing_that_counts(
    tiny_set: Path, tmp_path: Path, undisturbed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    killed: list[int] = []
    killer = threading.Thread(target=_kill_worker, args=(tmp_path / "model/checkpoints", killed), daemon=True)
    killer.start()
    with caplog.at_level(logging.INFO, logger="nucseg_ray"):
        run_train(TrainSettings(data=str(tiny_set), output=str(tmp_path / "model"), **SHORT))
    killer.join()
    assert len(killed) == 1
    going_on = [record for record in caplog.records if record.getMessage().startswith("going on after epoch ")]
    assert len(going_on) == 1
    assert [row["epoch"] for row in _history(tmp_path / "model")] == list(range(1, EPOCHS + 1))
    _assert_same_training(tmp_path / "model", undisturbed)


def _kill_worker(checkpoints: Path, killed: list[int]) -> None:
    """Kill the training worker of this process's Ray at the end of the second epoch.

    Its checkpoint stands but need not be known to Ray yet: the worker that takes over begins after epoch 1 or 2.
    """
    deadline = time.monotonic() + DEADLINE_S
    while not any(path.read_bytes().count(b"epoch") > 1 for path in checkpoints.glob("*/checkpoint_*/history.json")):
        if time.monotonic() > deadline:
            return
        time.sleep(0.02)
    for pid in _workers():
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)


def _workers() -> list[int]:
    """Find Ray's training workers among the descendants of this process; others may run on this machine."""
    parents: dict[int, int] = {}
    named = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if (entry / "cmdline").read_bytes().startswith(b"ray::RayTrainWorker"):
                named.append(int(entry.name))
        except OSError:  # ended meanwhile
            continue
    return [pid for pid in named if os.getpid() in _ancestors(pid, parents)]


def _ancestors(pid: int, parents: dict[int, int]) -> list[int]:
    found = []
    while pid in parents:
        pid = parents[pid]
        found.append(pid)
    return found
