"""A small network. TensorFlow is imported by the fixtures alone: collecting these tests stays quick."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nucseg_ray.imaging.labels import CentreLabels
from nucseg_ray.imaging.normalise import Percentile
from nucseg_ray.imaging.synthetic import SiteLook, render_site
from nucseg_ray.model.architecture import Architecture
from nucseg_ray.model.bundle import Bundle, add_forms, write_bundle


@pytest.fixture(scope="session")
def architecture() -> Architecture:
    return Architecture(("nucleus", "centre_dy", "centre_dx"), decoder_filters=(8, 8, 8, 8), skip_filters=(4, 4, 4, 4))


@pytest.fixture(scope="session")
def unet() -> Any:
    """Give the module: importing it imports TensorFlow."""
    from nucseg_ray.model import unet

    return unet


@pytest.fixture(scope="session")
def weights(unet: Any, architecture: Architecture) -> dict[str, np.ndarray]:
    return unet.initial_weights(architecture, encoder="none", seed=5)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory, architecture: Architecture, weights: dict[str, Any]) -> Bundle:
    folder: Path = tmp_path_factory.mktemp("model")
    # Untrained, it answers 0.5 everywhere, give or take a hundredth: too flat a map to tell one image from another.
    contrast = {**weights, "head/kernel:0": weights["head/kernel:0"] * 900}
    return write_bundle(
        folder,
        contrast,
        architecture=architecture,
        normalisation=Percentile(),
        diameter_px=30.0,
        labels=CentreLabels(),
        training={},
    )


@pytest.fixture(scope="session")
def draw() -> Callable[..., np.ndarray]:
    """Draw a site ``(H, W, 3)`` float32 in [0, 1], as a network takes it."""

    def draw_site(*shape: int, seed: int = 0) -> np.ndarray:
        look = SiteLook(shape_px=(shape[0], shape[1]), nuclei=4, radius_px=(7.0, 12.0))
        image = Percentile().normalise(render_site(look, np.random.default_rng(seed))[0])
        return np.repeat(image[..., np.newaxis], 3, axis=-1)

    return draw_site


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, bundle: Bundle, draw: Callable[..., np.ndarray]) -> Bundle:
    """``bundle`` with every form of its network, calibrated on images of 128 x 128."""
    from nucseg_ray.model.openvino_forms import export_forms

    folder = tmp_path_factory.mktemp("exported") / "model"
    shutil.copytree(bundle.folder, folder)
    calibration = [draw(128, 128, seed=seed) for seed in range(8)]
    return add_forms(folder, export_forms(bundle.architecture, bundle.weights(), calibration))
