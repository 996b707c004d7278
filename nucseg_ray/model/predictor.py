"""The seam behind which the network runs: images in, maps out. Only this folder knows which runtime it is."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from nucseg_ray.errors import ModelError, UsageError
from nucseg_ray.model.bundle import FLOAT32, INT8, REFERENCE, Bundle
from nucseg_ray.model.processor import multiplies_int8_exactly

Runtime = Literal["auto", "openvino", "tensorflow"]


class Predictor(Protocol):
    """Runs a network."""

    def predict(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Turn ``(N, H, W, 3)`` in [0, 1], H and W multiples of 32, into maps ``(N, H, W, M)`` in [0, 1].

        What an image becomes does not depend on the others of its batch.
        """
        ...


def runs_here(form: str) -> bool:
    """Say whether this machine's processor computes a form as others do."""
    return form != INT8 or multiplies_int8_exactly()


def choose_form(bundle: Bundle, *, runtime: Runtime, use_gpu: bool) -> str:
    """Say in which form the network is to run: ``auto`` is TensorFlow on a GPU, else the bundle's default.

    On a processor that cannot compute int8 exactly, it is float32 where the bundle says int8.

    Raises
    ------
    UsageError
        OpenVINO is asked for together with a GPU, or the bundle has no form for it.
    """
    if runtime == "openvino" and use_gpu:
        raise UsageError("--runtime openvino runs on CPUs, --use-gpu asks for a GPU; leave one of them out")
    if runtime == "openvino" and not bundle.forms:
        raise UsageError(f"--runtime openvino: {bundle.folder} holds no form for it; use auto or tensorflow")
    if use_gpu or runtime == "tensorflow":
        return REFERENCE
    form = FLOAT32 if runtime == "openvino" and bundle.default_form == REFERENCE else bundle.default_form
    return form if runs_here(form) else FLOAT32


def load_predictor(bundle: Bundle, *, form: str, threads: int) -> Predictor:
    """Load the network in one form, to run on so many threads (or a GPU where TensorFlow sees one).

    Raises
    ------
    ModelError
        The bundle does not hold that form, or this machine's processor would compute it otherwise than others do.
    """
    if form == REFERENCE:
        from nucseg_ray.model.tensorflow_runtime import TensorFlowPredictor

        return TensorFlowPredictor(bundle, threads=threads)
    if not runs_here(form):
        raise ModelError(
            "the network in 8-bit integers: expected a processor with VNNI (Intel since 2019, AMD since 2022) on every "
            "node, found one without; run with --runtime tensorflow, or start the command on a node like this one"
        )
    from nucseg_ray.model.openvino_runtime import OpenVinoPredictor

    return OpenVinoPredictor(bundle.network(form), threads=threads)
