"""A bundle's network for other software, from any place to any place."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from nucseg_ray.config import ExportSettings
from nucseg_ray.errors import InputError, MissingInputError, OutputError
from nucseg_ray.imaging.labels import CentreLabels
from nucseg_ray.imaging.normalise import Percentile
from nucseg_ray.model.architecture import Architecture
from nucseg_ray.model.bundle import REFERENCE, read_bundle, write_bundle
from nucseg_ray.model.predictor import load_predictor
from nucseg_ray.pipelines.export import run_export
from nucseg_ray.storage.atomic import write_bytes
from nucseg_ray.storage.fetch import fetch_bytes
from nucseg_ray.storage.listing import find_files
from nucseg_ray.storage.locations import Location

SAVED_MODEL_FILES = {
    "saved_model/fingerprint.pb",
    "saved_model/saved_model.pb",
    "saved_model/variables/variables.data-00000-of-00001",
    "saved_model/variables/variables.index",
}
DESCRIPTION = {"README.txt", "preprocessing.json"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from nucseg_ray.model.unet import initial_weights

    architecture = Architecture(
        ("nucleus", "centre_dy", "centre_dx"), decoder_filters=(8, 8, 8, 8), skip_filters=(4, 4, 4, 4)
    )
    weights = initial_weights(architecture, encoder="none", seed=5)
    folder = tmp_path_factory.mktemp("model")
    write_bundle(
        folder,
        weights,
        architecture=architecture,
        normalisation=Percentile(),
        diameter_px=30.0,
        labels=CentreLabels(),
        training={},
    )
    return folder


def names(location: Location) -> set[str]:
    return {name for name, _ in find_files(location)}


@pytest.mark.parametrize(("to", "files"), [("savedmodel", SAVED_MODEL_FILES), ("onnx", {"model.onnx"})])
def test_one_format_is_written(model: Path, tmp_path: Path, to: str, files: set[str]) -> None:
    said = run_export(ExportSettings(model=str(model), output=str(tmp_path / "a" / "b"), to=to))
    assert names(Location(str(tmp_path / "a" / "b"))) == files | DESCRIPTION
    fingerprint = read_bundle(model).fingerprint
    what = {"savedmodel": "saved_model", "onnx": "model.onnx"}[to]
    assert said == f"{what} of model {fingerprint} are in {tmp_path}/a/b; README.txt says how to use them"


def test_from_a_bucket_to_a_bucket_in_both_formats(model: Path, bucket: str) -> None:
    out = Location(bucket) / "exported"
    for path in model.iterdir():
        write_bytes(Location(bucket) / f"model/{path.name}", path.read_bytes())
    run_export(ExportSettings(model=f"{bucket}/model", output=out.uri))
    assert names(out) == SAVED_MODEL_FILES | {"model.onnx"} | DESCRIPTION
    assert json.loads(fetch_bytes(out / "preprocessing.json"))["networks"] == ["saved_model", "model.onnx"]
    image = np.random.default_rng(0).random((1, 64, 96, 3), np.float32)
    session = onnxruntime.InferenceSession(fetch_bytes(out / "model.onnx"), providers=["CPUExecutionProvider"])
    expected = load_predictor(read_bundle(model), form=REFERENCE, threads=1).predict(image)
    np.testing.assert_allclose(session.run(["maps"], {"image": image})[0], expected, rtol=0, atol=1e-4)
    with pytest.raises(OutputError, match=r"expected a folder that is new or empty, found README\.txt in it"):
        run_export(ExportSettings(model=str(model), output=out.uri))


def test_an_output_that_holds_something_is_left_alone(model: Path, tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"--output .*found kept\.txt in it; name another --output"):
        run_export(ExportSettings(model=str(model), output=str(tmp_path)))
    with pytest.raises(InputError, match=r"kept\.txt: expected a folder, found a file"):
        run_export(ExportSettings(model=str(model), output=str(tmp_path / "kept.txt")))
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]
    assert (tmp_path / "kept.txt").read_text() == "mine"


def test_without_a_model_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="no model bundle there"):
        run_export(ExportSettings(model=str(tmp_path / "none"), output=str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()
