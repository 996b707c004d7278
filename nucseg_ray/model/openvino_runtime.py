"""The runtime for CPUs: OpenVINO, which loads at once and needs no TensorFlow."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

# Images of one plate have one shape; a folder of pictures may have many. Compiling one takes 0.1 to 0.4 s, keeping it
# some 100 MB at 512 x 512.
COMPILED_SHAPES = 8


class OpenVinoPredictor:
    """Runs the network with OpenVINO, several images under way at a time, each in a request of its own."""

    def __init__(self, network: Path, *, threads: int) -> None:
        """Read the network; it is compiled for each shape of image when the first one comes."""
        self._core = openvino.Core()
        self._network = self._core.read_model(network)
        self._threads = threads
        self._compiled = lru_cache(maxsize=COMPILED_SHAPES)(self._compile)

    def predict(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Turn ``(N, H, W, 3)`` in [0, 1], H and W multiples of 32, into maps ``(N, H, W, M)`` in [0, 1]."""
        requests = self._compiled(images.shape[1:3])
        maps: list[Any] = [None] * len(images)

        def keep(request: Any, number: int) -> None:
            maps[number] = request.get_output_tensor(0).data[0].copy()

        requests.set_callback(keep)
        for number, image in enumerate(images):
            requests.start_async({0: image[np.newaxis]}, number)
        requests.wait_all()
        return np.stack(maps)

    def _compile(self, shape: tuple[int, int]) -> Any:
        network = self._network.clone()
        network.reshape([1, *shape, 3])
        settings = {
            "INFERENCE_NUM_THREADS": self._threads,
            "PERFORMANCE_HINT": "THROUGHPUT",
            # Without it, OpenVINO computes in bfloat16 where the CPU can, and results differ between machines.
            "INFERENCE_PRECISION_HINT": "f32",
        }
        return openvino.AsyncInferQueue(self._core.compile_model(network, "CPU", settings))
