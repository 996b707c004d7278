"""A small network. TensorFlow is imported by the fixtures alone: collecting these tests stays quick."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nucseg_ray.imaging.labels import DistanceLabels
from nucseg_ray.imaging.normalise import Percentile
from nucseg_ray.model.architecture import Architecture
from nucseg_ray.model.bundle import Bundle, write_bundle


@pytest.fixture(scope="session")
def architecture() -> Architecture:
    return Architecture(("nucleus", "distance"), decoder_filters=(8, 8, 8, 8), skip_filters=(4, 4, 4, 4))


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
    contrast = {**weights, "head/kernel:0": weights["head/kernel:0"] * 300}
    return write_bundle(
        folder,
        contrast,
        architecture=architecture,
        normalisation=Percentile(),
        labels=DistanceLabels(),
        training={},
    )
