"""The network."""

from __future__ import annotations

import urllib.error
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nucseg_ray.errors import WeightsError
from nucseg_ray.model.architecture import Architecture

WEIGHTS_FILE = "weights/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"


@pytest.fixture(scope="module")
def model(unet: Any, architecture: Architecture, weights: dict[str, np.ndarray]) -> Any:
    built = unet.build_unet(architecture)
    unet.set_weights(built, weights)
    return built


def encoder_names(model: Any) -> list[str]:
    return [weight.name for weight in model.get_layer("encoder").weights]


@pytest.mark.parametrize("shape", [(1, 32, 32, 3), (2, 64, 96, 3)])
def test_maps_have_the_size_of_the_image(model: Any, shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).random(shape, np.float32)
    maps = model(image, training=False).numpy()
    assert maps.shape == (*shape[:3], 3)
    assert maps.dtype == np.float32
    assert np.isfinite(maps).all() and maps.std() > 0


def test_the_encoder_keeps_its_statistics(model: Any) -> None:
    before = {weight.name: weight.numpy() for weight in model.get_layer("encoder").weights}
    model(np.random.default_rng(0).random((2, 32, 32, 3), np.float32), training=True)
    for weight in model.get_layer("encoder").weights:
        np.testing.assert_array_equal(weight.numpy(), before[weight.name])


def test_weights_go_out_and_in(unet: Any, model: Any, architecture: Architecture) -> None:
    weights = unet.get_weights(model)
    assert len(weights) == len(model.weights)
    other = unet.build_unet(architecture)
    unet.set_weights(other, {name: array.astype(np.float64) for name, array in reversed(weights.items())})
    image = np.random.default_rng(1).random((1, 32, 32, 3), np.float32)
    np.testing.assert_array_equal(other(image, training=False).numpy(), model(image, training=False).numpy())


def test_weights_that_do_not_fit_are_named(unet: Any, model: Any, weights: dict[str, np.ndarray]) -> None:
    before = unet.get_weights(model)
    missing = {name: array for name, array in weights.items() if name != "head/kernel:0"}
    reshaped = {**weights, "head/bias:0": np.zeros(5, np.float32)}
    for wrong, message in (
        (missing, r"'head/kernel:0' should have shape \(1, 1, 8, 12\), found nothing"),
        (reshaped, r"'head/bias:0' should have shape \(12,\), found \(5,\)"),
        ({**weights, "extra:0": np.zeros(1)}, r"'extra:0' should have shape none \(unknown\), found \(1,\)"),
        ({}, "found nothing"),
    ):
        with pytest.raises(WeightsError, match=message):
            unet.set_weights(model, wrong)
    assert all((before[name] == array).all() for name, array in unet.get_weights(model).items())


def test_a_seed_gives_the_same_start(unet: Any, architecture: Architecture, weights: dict[str, np.ndarray]) -> None:
    again = unet.initial_weights(architecture, encoder="none", seed=5)
    assert all((again[name] == array).all() for name, array in weights.items())
    other = unet.initial_weights(architecture, encoder="none", seed=6)
    assert (other["head/kernel:0"] != weights["head/kernel:0"]).any()


def test_a_model_hands_on_what_fits(unet: Any, architecture: Architecture, weights: dict[str, np.ndarray]) -> None:
    rounded = {name: array.astype(np.float16) for name, array in weights.items()}
    whole = unet.weights_from_model(architecture, rounded, of=architecture, seed=6)
    assert whole.keys() == weights.keys()
    assert all(array.dtype == np.float32 and (array == rounded[name]).all() for name, array in whole.items())

    wider = replace(architecture, decoder_filters=(8, 8, 8, 16))
    part = unet.weights_from_model(wider, rounded, of=architecture, seed=6)
    anew = unet.initial_weights(wider, encoder="none", seed=6)
    encoder = set(encoder_names(unet.build_unet(wider)))
    assert part.keys() == anew.keys() > encoder
    assert all((array == (rounded if name in encoder else anew)[name]).all() for name, array in part.items())
    assert (part["Conv1/kernel:0"] != anew["Conv1/kernel:0"]).any()

    without = {name: array for name, array in rounded.items() if name != "Conv1/kernel:0"}
    for of in (architecture, wider):
        with pytest.raises(WeightsError, match=r"'Conv1/kernel:0' should have shape \(3, 3, 3, 32\), found nothing"):
            unet.weights_from_model(architecture, without, of=of, seed=6)


def test_a_file_that_is_no_encoder_is_refused(unet: Any, model: Any) -> None:
    for data in (b"", b"garbage " * 50):
        with pytest.raises(WeightsError, match="the file given.*could not be loaded.*--encoder-weights none"):
            unet.load_encoder(model, data)


def test_imagenet_without_a_download_says_what_to_do(
    unet: Any, model: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from tf_keras.src.utils import data_utils

    def unreachable(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no network here")

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(data_utils, "urlretrieve", unreachable)
    with pytest.raises(WeightsError, match=r"'imagenet'.*no network here.*--encoder-weights PATH.*~/.keras/models"):
        unet.load_encoder(model, "imagenet")


def test_imagenet_weights_reach_the_encoder(unet: Any, architecture: Architecture, realdata: Path) -> None:
    file = realdata / WEIGHTS_FILE
    if not file.is_file():
        pytest.skip(f"no encoder weights: expected {file}")
    model = unet.build_unet(architecture)
    before = unet.get_weights(model)
    unet.load_encoder(model, file.read_bytes())
    after = unet.get_weights(model)
    changed = {name for name in before if (before[name] != after[name]).any()}
    assert changed == set(encoder_names(model))
