"""Runs with the model that comes with the package, and trainings that go on from a model."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from nucseg_ray import commands
from nucseg_ray.config import TrainSettings
from nucseg_ray.errors import MissingInputError, ModelError, UsageError
from nucseg_ray.imaging.labels import CentreLabels, ForegroundLabels
from nucseg_ray.imaging.normalise import FullRange
from nucseg_ray.model import pretrained
from nucseg_ray.model.bundle import MODEL_JSON, REFERENCE, WEIGHTS, Bundle, read_arrays, read_bundle, write_rounded
from nucseg_ray.pipelines.beginning import Wanted, beginning
from nucseg_ray.pipelines.training import run_train
from nucseg_ray.storage.atomic import write_bytes
from nucseg_ray.storage.fetch import fetch_bytes
from nucseg_ray.storage.locations import Location


@pytest.fixture
def shipped(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A small model, written as the package carries one and put in its place."""
    trained = read_bundle(tiny_model)
    forms = {name: (tiny_model / name).read_bytes() for name in trained.file_names[1:-1]}
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "pretrained")
    return write_rounded(tmp_path / "pretrained", trained, forms)


def test_a_run_without_a_model_takes_the_one_of_the_package(
    shipped: Bundle, plate: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    (tmp_path / "P1").mkdir()
    for path in sorted((plate / "P1").glob("*.tif"))[:2]:
        shutil.copy(path, tmp_path / "P1")
    flags = ["--input", tmp_path / "P1", "--output", tmp_path / "out", "--no-preflight"]
    first = call(commands.predict, *flags)
    assert (first.code, first.said) == (0, [])
    recorded = json.loads((tmp_path / "out/run.json").read_text())
    assert recorded["settings"]["model"] == "pretrained"
    assert recorded["made_with"]["model"] == shipped.fingerprint
    # The same model by its path: the run goes on.
    again = call(commands.predict, *flags, "--model", shipped.folder)
    assert (again.code, again.printed[0].rpartition("(")[2]) == (0, "of these, done before: 2)")


@pytest.mark.parametrize("command", [commands.predict, commands.evaluate, commands.export])
def test_without_a_model_in_the_package_every_command_says_so(
    command: Any, tmp_path: Path, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "pretrained")
    inputs = {"predict": ["--input", tmp_path], "evaluate": ["--data", tmp_path], "export": []}
    ended = call(command, *inputs[command.name], "--model", "pretrained", "--output", tmp_path / "out")
    assert (ended.code, ended.printed, len(ended.said)) == (2, [], 1)
    assert ended.said[0].startswith("error: model pretrained: expected the one that comes with nucseg_ray, found no")
    assert list(tmp_path.iterdir()) == []


def _wanted(of: Bundle, **other: Any) -> Wanted:
    """Give what a training like that of a bundle wants, but for something."""
    alike = Wanted(of.architecture, of.normalisation, of.diameter_px, CentreLabels(min_area_px=7))
    return replace(alike, **other)


def _foreground(of: Bundle) -> Wanted:
    labels = ForegroundLabels()
    return _wanted(of, architecture=replace(of.architecture, map_names=labels.map_names), labels=labels)


def test_a_training_goes_on_from_a_model(shipped: Bundle, bucket: str, caplog: pytest.LogCaptureFixture) -> None:
    folder = Location(bucket) / "models/own"
    for name in shipped.file_names:
        write_bytes(folder / name, (shipped.folder / name).read_bytes())
    stored = read_arrays(shipped.folder / WEIGHTS)
    assert {array.dtype for array in stored.values()} == {np.dtype(np.float16)}
    for named in ("pretrained", folder.uri):
        with caplog.at_level(logging.INFO, logger="nucseg_ray"):
            begun = beginning(_wanted(shipped), named=named, seed=3)
        weights = ray.get(begun.weights)
        assert weights.keys() == stored.keys() and begun.labels == shipped.labels
        for name, array in weights.items():
            assert array.dtype == np.float32
            np.testing.assert_array_equal(array, stored[name], err_msg=name)
        assert caplog.records[-1].getMessage() == (
            f"going on from model {shipped.fingerprint}: encoder, decoder, maps and label settings"
        )


def test_a_model_that_saw_images_otherwise_is_told(shipped: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    beginning(_wanted(shipped, diameter_px=24.0, normalisation=FullRange()), named="pretrained", seed=3)
    assert caplog.records[-1].levelname == "WARNING" and caplog.records[-1].getMessage().startswith(
        f"model {shipped.fingerprint} learned with --nucleus-diameter-px {shipped.diameter_px:g} --normalisation "
        "percentile, and would go on with --nucleus-diameter-px 24 --normalisation full-range: "
    )


def test_of_a_model_with_other_maps_the_encoder_is_taken(shipped: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    alone = _foreground(shipped)
    with caplog.at_level(logging.INFO, logger="nucseg_ray"):
        began = beginning(alone, named=str(shipped.folder), seed=3)
    assert began.labels == alone.labels
    begun, random = ray.get([began.weights, beginning(alone, named="none", seed=3).weights])
    weights = shipped.weights()
    own = {name for name in begun if name in weights and np.array_equal(begun[name], weights[name])}
    anew = {name for name in begun if np.array_equal(begun[name], random[name])}
    assert begun.keys() == random.keys() == own | anew
    assert {"Conv1/kernel:0", "block_16_project/kernel:0"} <= own - anew
    assert {"up1_conv/kernel:0", "head/kernel:0"} <= anew - own
    told = caplog.records[-1].getMessage()
    assert told.startswith(
        f"going on from the encoder of model {shipped.fingerprint}; the decoder begins anew: its maps"
    )


def test_a_mean_is_taken_with_a_whole_model_only(shipped: Bundle) -> None:
    for wanted, named in ((_wanted(shipped), "none"), (_foreground(shipped), str(shipped.folder))):
        with pytest.raises(UsageError, match=f"^--keep mean: expected .* found {named}; "):
            beginning(wanted, named=named, seed=0, whole=True)
    whole = beginning(_wanted(shipped), named=str(shipped.folder), seed=0, whole=True)
    assert ray.get(whole.weights).keys() == shipped.weights().keys()


def test_a_model_that_is_not_in_order_is_told_with_the_flag(shipped: Bundle) -> None:
    flag = f"--encoder-weights {shipped.folder}: "
    (shipped.folder / WEIGHTS).write_bytes(b"other")
    with pytest.raises(ModelError, match=rf"^{flag}.*weights\.npz: its SHA-256"):
        beginning(_wanted(shipped), named=str(shipped.folder), seed=0)
    (shipped.folder / WEIGHTS).unlink()
    with pytest.raises(MissingInputError, match=rf"^{flag}.*weights\.npz: missing from the bundle"):
        beginning(_wanted(shipped), named=str(shipped.folder), seed=0)
    (shipped.folder / MODEL_JSON).unlink()
    with pytest.raises(MissingInputError, match="^--encoder-weights pretrained: model pretrained: expected the one"):
        beginning(_wanted(shipped), named="pretrained", seed=0)


@pytest.mark.slow
def test_what_goes_on_begins_with_what_was_learned(
    shipped: Bundle, tiny_model: Path, tiny_set: Path, tmp_path: Path
) -> None:
    short = {"epochs": 1, "crops_per_epoch": 16, "crop_px": 64, "batch_size": 8, "learning_rate": 1e-6}
    short["nucleus_diameter_px"] = read_bundle(tiny_model).diameter_px
    scores = run_train(
        TrainSettings(data=str(tiny_set), output=str(tmp_path / "model"), encoder_weights="pretrained", **short)
    )
    before, after = (of[REFERENCE]["all"]["ap"][0] for of in (read_bundle(tiny_model).metrics, scores))
    assert after == pytest.approx(before, abs=0.05) and before > 0.3
    settings = json.loads(fetch_bytes(Location(str(tmp_path / "model/settings.json"))))
    assert settings["encoder_weights"] == "pretrained"
