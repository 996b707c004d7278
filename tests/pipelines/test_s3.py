"""Runs from and to a real HTTP S3 server: the same results as with local folders, and the same clear errors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv
import pytest

from nucseg_ray import commands
from nucseg_ray.config import EvaluateSettings, TrainSettings
from nucseg_ray.config_predict import PredictSettings
from nucseg_ray.errors import MissingInputError, ModelError, OutputError
from nucseg_ray.imaging.codecs import decode_label_png
from nucseg_ray.model.bundle import FORMAT, MODEL_JSON, REFERENCE, WEIGHTS, Bundle, read_bundle
from nucseg_ray.pipelines.evaluation import run_evaluate
from nucseg_ray.pipelines.inference import run_predict
from nucseg_ray.pipelines.models import fetch_bundle
from nucseg_ray.pipelines.training import run_train
from nucseg_ray.storage.atomic import remove, write_bytes
from nucseg_ray.storage.fetch import fetch_bytes
from nucseg_ray.storage.ledger import committed_stems
from nucseg_ray.storage.listing import list_files
from nucseg_ray.storage.locations import Location
from nucseg_ray.storage.parts import read_parts

WELLS = 6


def _upload(folder: Path, target: Location) -> str:
    """Copy what lies in a folder, at any depth."""
    for path in folder.rglob("*"):
        if path.is_file():
            write_bytes(target / path.relative_to(folder).as_posix(), path.read_bytes())
    return target.uri


def _upload_bundle(model: Path, target: Location) -> str:
    for name in read_bundle(model).file_names:
        write_bytes(target / name, (model / name).read_bytes())
    return target.uri


def _some_wells(plate: Path, folder: Path) -> Path:
    """Copy some images of the plate, both with nuclei and without."""
    folder.mkdir(parents=True)
    for path in sorted((plate / "P1").glob("*.tif"))[:WELLS]:
        shutil.copy(path, folder)
    return folder


def _table(out: Location, name: str) -> list[dict[str, Any]]:
    rows = read_parts(out, name, committed_stems(out)).to_pylist()
    keys = ("Metadata_Plate", "Metadata_Well", "Metadata_Site", "ObjectNumber")
    return sorted(
        ({column: value for column, value in row.items() if column != "seconds"} for row in rows),
        key=lambda row: [row.get(key) for key in keys],
    )


def _masks(out: Location) -> dict[str, bytes]:
    return {name: fetch_bytes(out / "masks" / name) for name, _ in list_files(out / "masks") if name.endswith(".png")}


def _assert_same_segmentation(one: Location, other: Location) -> None:
    first, second = _masks(one), _masks(other)
    assert len(first) == WELLS
    assert first == second
    assert any(decode_label_png(mask, name=name).any() for name, mask in first.items())
    for name in ("sites", "nuclei", "masks"):
        assert _table(one, name) == _table(other, name)
    assert len(_table(one, "sites")) == WELLS


def test_predict_from_and_to_s3_gives_what_it_gives_locally(
    plate: Path, tiny_model: Path, tmp_path: Path, bucket: str
) -> None:
    images, local, remote = _some_wells(plate, tmp_path / "P1"), Location(str(tmp_path / "out")), Location(bucket)
    wanted = {"masks": "both", "sites_per_part": 4}
    run_predict(PredictSettings(input=images.as_uri(), model=tiny_model.as_uri(), output=local.uri, **wanted))
    account = run_predict(
        PredictSettings(
            input=_upload(images, remote / "plates/P1"),
            model=_upload_bundle(tiny_model, remote / "models/tiny"),
            output=(remote / "segmented").uri,
            **wanted,
        )
    )
    assert (account.sites, account.failed, account.done_before) == (WELLS, 0, 0)
    _assert_same_segmentation(local, remote / "segmented")


def test_evaluate_from_and_to_s3_gives_what_it_gives_locally(
    tiny_set: Path, tiny_model: Path, tmp_path: Path, bucket: str
) -> None:
    for folder in ("images", "masks"):
        (tmp_path / "set" / folder).mkdir(parents=True)
        for path in sorted((tiny_set / folder).iterdir())[:3]:
            shutil.copy(path, tmp_path / "set" / folder)
    remote = Location(bucket)
    local = EvaluateSettings(data=str(tmp_path / "set"), model=str(tiny_model), output=str(tmp_path / "scores"))
    summary = run_evaluate(local)
    of_remote = run_evaluate(
        EvaluateSettings(
            data=_upload(tmp_path / "set", remote / "set"),
            model=_upload_bundle(tiny_model, remote / "model"),
            output=(remote / "scores").uri,
        )
    )
    assert of_remote == summary
    assert summary["all"]["images"] == 3 and summary["all"]["ap"][0] > 0
    written = {name: fetch_bytes(remote / "scores" / name) for name, _ in list_files(remote / "scores")}
    assert sorted(written) == ["ap_curve.png", "images.csv", "scores.json"]
    assert written == {path.name: path.read_bytes() for path in (tmp_path / "scores").iterdir()}


@pytest.mark.parametrize("place", ["a bucket", "no bucket"])
def test_a_model_that_is_not_there_is_named_by_its_uri(place: str, bucket: str) -> None:
    model = Location(bucket + ("" if place == "a bucket" else "-other")) / "model"
    with pytest.raises(MissingInputError) as raised:
        fetch_bundle(model.uri)
    assert str(raised.value) == f"{model}: no model bundle there (expected a folder with model.json in it)"


def _cut(content: bytes) -> bytes:
    return content[:-1]


def _other_format(content: bytes) -> bytes:
    return json.dumps({**json.loads(content), "format": 99}).encode()


def _other_files(content: bytes) -> bytes:
    return json.dumps({**json.loads(content), "files": {"../../stolen": "00"}}).encode()


@pytest.mark.parametrize(
    ("name", "spoil", "error", "told"),
    [
        (WEIGHTS, None, MissingInputError, "/weights.npz: missing from the bundle; copy the whole folder again"),
        (WEIGHTS, _cut, ModelError, "/weights.npz: its SHA-256 is not the one in model.json; the file was altered"),
        ("network_int8.bin", _cut, ModelError, "/network_int8.bin: its SHA-256 is not the one in model.json"),
        (MODEL_JSON, lambda content: content[:50], ModelError, "/model.json: not readable as JSON"),
        (
            MODEL_JSON,
            lambda content: b"[]",
            ModelError,
            f"/model.json: expected a bundle of format {FORMAT}, found 'list'",
        ),
        (MODEL_JSON, _other_format, ModelError, f"/model.json: expected a bundle of format {FORMAT}, found 99"),
        (MODEL_JSON, _other_files, ModelError, "/model.json: expected it to name weights.npz and whole forms"),
    ],
)
def test_a_model_that_is_not_in_order_is_named_by_its_uri(
    tiny_model: Path,
    bucket: str,
    name: str,
    spoil: Callable[[bytes], bytes] | None,
    error: type[Exception],
    told: str,
) -> None:
    model = Location(bucket) / "model"
    _upload_bundle(tiny_model, model)
    if spoil is None:
        remove(model / name)
    else:
        write_bytes(model / name, spoil(fetch_bytes(model / name)))
    with pytest.raises(error) as raised:
        fetch_bundle(model.uri)
    assert str(raised.value).startswith(f"{model}{told}")


def test_a_missing_model_on_s3_is_one_line_for_predict_and_evaluate(
    plate: Path, tiny_set: Path, bucket: str, call: Callable[..., Any]
) -> None:
    model, out = f"{bucket}/model", f"{bucket}/out"
    for ended in (
        call(commands.predict, "--model", model, "--input", plate / "P1", "--output", out),
        call(commands.evaluate, "--model", model, "--data", tiny_set, "--output", out),
    ):
        assert (ended.code, ended.printed) == (2, [])
        assert ended.said == [f"error: {model}: no model bundle there (expected a folder with model.json in it)"]


def test_a_fetched_model_is_whole(tiny_model: Path, bucket: str, ray_session: None) -> None:
    model = Location(bucket) / "model"
    _upload_bundle(tiny_model, model)
    write_bytes(model / "checkpoints/run-1/state.npz", b"no part of the bundle")
    bundle, files = fetch_bundle(model.uri)
    original = read_bundle(tiny_model)
    for folder in (bundle.folder, files.folder()):
        assert _content(folder) == {name: (tiny_model / name).read_bytes() for name in original.file_names}
    assert bundle.fingerprint == original.fingerprint
    assert files.folder() == files.folder() != bundle.folder
    unpacked = files.folder()
    files.discard()
    assert not unpacked.exists()
    assert bundle.folder.is_dir()


def _content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# From the model that ships, so that there are nuclei to compare.
SHORT: dict[str, Any] = {
    "encoder_weights": "pretrained",
    "epochs": 2,
    "crops_per_epoch": 160,
    "crop_px": 64,
    "batch_size": 8,
    "learning_rate": 1e-4,
    # In which order several threads add up a sum is nowhere promised.
    "threads_per_worker": 1,
    "pictures": 1,
    "seed": 5,
}
MEASURED = ("seconds", "waiting_seconds", "validation_seconds", "ended_at")


def _bundle(model: Location) -> Bundle:
    return fetch_bundle(model.uri)[0]


def _history(model: Location) -> dict[str, list[float]]:
    table = pyarrow.csv.read_csv(pyarrow.BufferReader(fetch_bytes(model / "history.csv")))
    return {name: table.column(name).to_pylist() for name in table.column_names if name not in MEASURED}


def _left_behind(model: Location) -> list[str]:
    """List what a training left, without the names that chance and time have a part in."""
    names = [name for name, _ in list_files(model)]
    return sorted(name.rsplit("/", 1)[-1] if name.startswith("checkpoints/") else name for name in names)


@pytest.mark.slow
def test_train_and_predict_with_everything_on_s3_give_what_they_give_locally(
    tiny_set: Path, plate: Path, tmp_path: Path, bucket: str, call: Callable[..., Any]
) -> None:
    local, remote = Location(str(tmp_path)), Location(bucket) / "all of it"
    run_train(TrainSettings(data=str(tiny_set), output=(local / "model").uri, **SHORT))
    data = _upload(tiny_set, remote / "set")
    run_train(TrainSettings(data=data, output=(remote / "model").uri, **SHORT))

    one, other = _bundle(local / "model"), _bundle(remote / "model")
    weights, of_remote = one.weights(), other.weights()
    assert set(weights) == set(of_remote)
    for name, array in weights.items():
        np.testing.assert_array_equal(array, of_remote[name], err_msg=name)
    # Of the reference alone: the int8 form is calibrated by a library that promises no order of its sums.
    assert one.metrics[REFERENCE] == other.metrics[REFERENCE]
    assert one.training["data"] == other.training["data"]
    assert _history(local / "model") == _history(remote / "model")
    assert _left_behind(local / "model") == _left_behind(remote / "model")
    for name in ("before_after.png", "validation/scores.json", "validation/images.csv"):
        assert fetch_bytes(local / "model" / name) == fetch_bytes(remote / "model" / name)
    (state,) = [name for name, _ in list_files(remote / "model") if name.endswith("/state.npz")]
    assert state.startswith("checkpoints/run-")

    ended = call(commands.train, "--data", data, "--output", remote / "model", "--encoder-weights", "none")
    assert (ended.code, ended.printed, len(ended.said)) == (2, [], 1)
    assert "there is a model already; name another --output" in ended.said[0]
    assert _bundle(remote / "model").fingerprint == other.fingerprint

    images = _some_wells(plate, tmp_path / "P1")
    for place, given in ((local, str(images)), (remote, _upload(images, remote / "P1"))):
        wanted = {"runtime": "tensorflow", "threads_per_actor": 1, "masks": "both"}
        run_predict(PredictSettings(input=given, model=(place / "model").uri, output=(place / "out").uri, **wanted))
    _assert_same_segmentation(local / "out", remote / "out")


def test_an_output_that_cannot_be_written_is_refused_before_training(tiny_set: Path, bucket: str) -> None:
    settings = TrainSettings(data=str(tiny_set), output=f"{bucket}-other/model", **SHORT)
    with pytest.raises(OutputError, match=r"-other/model/lease.json: cannot be written"):
        run_train(settings)
