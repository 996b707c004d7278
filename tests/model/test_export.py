"""The network for other software: each format predicts what the bundle predicts, without this package."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from nucseg_ray.errors import UsageError
from nucseg_ray.imaging.codecs import as_rgb, decode_image
from nucseg_ray.imaging.labels import ForegroundLabels, labels_from_dict
from nucseg_ray.imaging.normalise import FullRange, normalisation_from_dict
from nucseg_ray.imaging.synthetic import SiteLook, render_site
from nucseg_ray.model import onnx_form
from nucseg_ray.model.architecture import Architecture
from nucseg_ray.model.bundle import REFERENCE, Bundle, write_bundle
from nucseg_ray.model.handover import ONNX, PREPROCESSING, README, SAVED_MODEL, export_network
from nucseg_ray.model.predictor import Predictor, load_predictor
from nucseg_ray.model.segmenter import Segmenter

Draw = Callable[..., np.ndarray]
# Of the maps' full range of 1. A SavedModel runs the same operations; ONNX Runtime adds up in another order.
TOLERANCE = {SAVED_MODEL: 1e-6, ONNX: 1e-4}
BATCHES = [(1, 32, 32), (1, 256, 192), (3, 64, 96), (5, 128, 32), (2, 320, 256)]
# Runs far from this package: isolated, in another folder, with nothing but TensorFlow and NumPy.
RUN_SAVED_MODEL = """
import sys
import numpy as np
import tensorflow as tf
folder, given, found = sys.argv[1:]
network = tf.saved_model.load(folder).signatures["serving_default"]
with np.load(given) as images:
    np.savez(found, **{name: network(image=tf.constant(images[name]))["maps"].numpy() for name in images.files})
assert not any(name.partition(".")[0] in ("nucseg_ray", "tf_keras") for name in sys.modules)
"""


@pytest.fixture(scope="module")
def folder(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``bundle`` in both formats."""
    folder = tmp_path_factory.mktemp("exported")
    export_network(bundle, folder, networks=(SAVED_MODEL, ONNX))
    return folder


@pytest.fixture(scope="module")
def reference(bundle: Bundle) -> Predictor:
    return load_predictor(bundle, form=REFERENCE, threads=2)


@pytest.fixture(scope="module")
def batches(draw: Draw) -> list[np.ndarray]:
    drawn = [np.stack([draw(max(h, 64), max(w, 64), seed=n * h + i)[:h, :w] for i in range(n)]) for n, h, w in BATCHES]
    return [*drawn, np.zeros((1, 64, 64, 3), np.float32), np.ones((2, 32, 64, 3), np.float32)]


@pytest.fixture(scope="module")
def real_batches(bundle: Bundle, realdata: Path) -> list[np.ndarray]:
    """Real images of several kinds and sizes, each alone, cut to multiples of 32."""
    paths = [
        *sorted((realdata / "dsb2018" / "stage1_train").glob("*/images/*.png"))[::110],
        *sorted((realdata / "plates" / "sbs_bbbc013").rglob("Channel2-*.tif"))[:1],
    ]
    images = [as_rgb(bundle.normalisation.normalise(decode_image(p.read_bytes(), name=p.name))) for p in paths]
    return [image[np.newaxis, : image.shape[0] // 32 * 32, : image.shape[1] // 32 * 32] for image in images]


def run_onnx(folder: Path, batches: list[np.ndarray]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(folder / ONNX), providers=["CPUExecutionProvider"])
    return [session.run(["maps"], {"image": batch})[0] for batch in batches]


def run_saved_model(folder: Path, batches: list[np.ndarray]) -> list[np.ndarray]:
    given, found = folder.parent / "given.npz", folder.parent / "found.npz"
    np.savez(given, **{str(number): batch for number, batch in enumerate(batches)})
    command = [sys.executable, "-I", "-c", RUN_SAVED_MODEL, str(folder / SAVED_MODEL), str(given), str(found)]
    subprocess.run(command, check=True, timeout=300, cwd=folder.parent)
    with np.load(found) as maps:
        return [maps[str(number)] for number in range(len(batches))]


RUN = {SAVED_MODEL: run_saved_model, ONNX: run_onnx}


def compare(network: str, folder: Path, reference: Predictor, batches: list[np.ndarray]) -> None:
    for batch, found in zip(batches, RUN[network](folder, batches), strict=True):
        expected = reference.predict(batch)
        assert found.shape == expected.shape == (*batch.shape[:3], 3) and found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE[network])


@pytest.mark.parametrize("network", RUN)
def test_a_format_predicts_what_the_bundle_predicts(
    network: str, folder: Path, reference: Predictor, batches: list[np.ndarray]
) -> None:
    assert min(reference.predict(batch).std() for batch in batches[: len(BATCHES)]) > 0.01  # there is a picture in them
    compare(network, folder, reference, batches)


@pytest.mark.parametrize("network", RUN)
def test_a_format_predicts_the_same_of_real_images(
    network: str, folder: Path, reference: Predictor, real_batches: list[np.ndarray]
) -> None:
    assert len({batch.shape for batch in real_batches}) >= 3
    compare(network, folder, reference, real_batches)


def test_the_onnx_file_says_what_it_takes(folder: Path) -> None:
    network = onnx.load(folder / ONNX)
    assert [(opset.domain, opset.version) for opset in network.opset_import] == [("", 15)]
    assert {node.domain for node in network.graph.node} == {""}

    def told(value: Any) -> tuple[str, int, list[str | int]]:
        tensor = value.type.tensor_type
        return value.name, tensor.elem_type, [size.dim_param or size.dim_value for size in tensor.shape.dim]

    assert [told(value) for value in network.graph.input] == [("image", onnx.TensorProto.FLOAT, ["N", "H", "W", 3])]
    assert [told(value) for value in network.graph.output] == [("maps", onnx.TensorProto.FLOAT, ["N", "H", "W", 3])]


def test_the_description_is_that_of_the_bundle(folder: Path, bundle: Bundle) -> None:
    told = json.loads((folder / PREPROCESSING).read_text())
    assert normalisation_from_dict(told["before"]["normalisation"]) == bundle.normalisation
    assert labels_from_dict(told["labels"]) == bundle.labels
    assert told["model"] == bundle.fingerprint
    assert (told["input"]["name"], told["input"]["shape"][3], told["input"]["sides_multiple_of"]) == ("image", 3, 32)
    assert (told["output"]["name"], told["output"]["maps"]) == ("maps", ["nucleus", "centre_dy", "centre_dx"])
    assert (told["networks"], told["onnx_opset"]) == (["saved_model", "model.onnx"], 15)


@pytest.fixture(scope="module")
def plain_bundle(tmp_path_factory: pytest.TempPathFactory, unet: Any) -> Bundle:
    """The other variants: one map, and pixels divided by their full range."""
    architecture = Architecture(("nucleus",), decoder_filters=(8, 8, 8, 8), skip_filters=(4, 4, 4, 4))
    weights = unet.initial_weights(architecture, encoder="none", seed=6)
    return write_bundle(
        tmp_path_factory.mktemp("plain"),
        {**weights, "head/kernel:0": weights["head/kernel:0"] * 300},
        architecture=architecture,
        normalisation=FullRange(),
        diameter_px=30.0,
        labels=ForegroundLabels(),
        training={},
    )


@pytest.fixture(scope="module")
def plain_folder(plain_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain_exported")
    export_network(plain_bundle, folder, networks=(SAVED_MODEL,))
    return folder


@pytest.mark.parametrize(("model", "exported_to"), [("bundle", "folder"), ("plain_bundle", "plain_folder")])
@pytest.mark.parametrize(("kind", "diameter"), [("grey16", 30), ("rgb8", 15), ("grey16", 60)])
def test_the_program_in_the_readme_gives_the_maps_of_a_segmenter(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    exported_to: str,
    kind: str,
    diameter: int,
) -> None:
    bundle: Bundle = request.getfixturevalue(model)
    folder: Path = request.getfixturevalue(exported_to)
    look = SiteLook(shape_px=(150, 201), nuclei=7, radius_px=(7.0, 12.0))
    image = render_site(look, np.random.default_rng(1))[0].astype(np.uint16)
    if kind == "rgb8":
        image = np.dstack([image // 300, image // 200, image // 400]).clip(0, 255).astype(np.uint8)
    text = (folder / README).read_text()
    program = "\n".join(line[4:] for line in text.splitlines() if line.startswith("    ") or not line)
    assert "nucseg_ray" not in program
    assert program.count("diameter = 30 ") == 1
    np.save(folder / "image.npy", image)
    monkeypatch.chdir(folder)
    variables: dict[str, Any] = {}
    exec(compile(program.replace("diameter = 30 ", f"diameter = {diameter} "), README, "exec"), variables)
    segmenter = Segmenter.load(bundle.folder, nucleus_diameter_px=diameter)
    found, expected = variables["maps"], segmenter.maps(image)
    assert found.dtype == np.uint8 and found.shape == expected.shape
    assert expected.std() > 1
    assert np.abs(found.astype(int) - expected).max() <= 1  # of 255: rounding at a half
    assert (found != expected).mean() < 0.001


def test_without_the_extra_onnx_is_refused_before_anything_is_written(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for absent, told in ({"tf2onnx"}, "needs tf2onnx,"), ({"tf2onnx", "onnx"}, "needs tf2onnx and onnx,"):
        monkeypatch.setattr(onnx_form, "find_spec", lambda name, absent=absent: None if name in absent else object())
        with pytest.raises(UsageError, match=told + r" not installed here; install nucseg_ray\[onnx\]"):
            export_network(bundle, tmp_path, networks=(SAVED_MODEL, ONNX))
        assert list(tmp_path.iterdir()) == []
    export_network(bundle, tmp_path, networks=(SAVED_MODEL,))
    assert {path.name for path in tmp_path.iterdir()} == {SAVED_MODEL, PREPROCESSING, README}
