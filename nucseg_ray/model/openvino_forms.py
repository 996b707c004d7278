"""The network in the forms that CPUs run: OpenVINO with float16 weights, and 8-bit integers.

Needs TensorFlow and OpenVINO, and NNCF for the integers; only training runs it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino.opset11 as opset
from numpy.typing import NDArray

from nucseg_ray.errors import ModelError
from nucseg_ray.model.architecture import Architecture
from nucseg_ray.model.bundle import FLOAT32, FORMS, INT8
from nucseg_ray.model.saved_model import as_module, write_saved_model

# So many convolutions stay in float: what integers lose of mean AP is lost there (benchmarks/quality.md).
IN_FLOAT = 2
# OpenVINO's and NNCF's tools report their use to their makers unless they are told that this is CI.
_NO_TELEMETRY = {"CI": "true", "NNCF_CI": "1"}


def export_forms(
    architecture: Architecture, weights: Mapping[str, NDArray[np.float32]], calibration: Sequence[NDArray[np.float32]]
) -> dict[str, bytes]:
    """Give the files of each form, by name.

    ``calibration`` are normalised images ``(H, W, 3)`` of every kind the model is for, H and W multiples of 32: the
    ranges of the integers are taken from what the network does with them (post-training quantisation, Jacob et al.
    2018, arXiv:1712.05877). Without NNCF only the float form is made.
    """
    os.environ.update(_NO_TELEMETRY)
    network = _convert(architecture, weights)
    files = _files(FLOAT32, network)
    try:
        import nncf
    except ImportError:
        return files
    quantised = nncf.quantize(
        network,
        nncf.Dataset([image[np.newaxis] for image in calibration]),
        subset_size=len(calibration),
        preset=nncf.QuantizationPreset.MIXED,
        fast_bias_correction=False,  # ten seconds more, and closer to the reference
        ignored_scope=nncf.IgnoredScope(names=_first_convolutions(network)),
    )
    return {**files, **_files(INT8, quantised)}


def _first_convolutions(network: Any) -> list[str]:
    """Name those that see the image first: a dim nucleus is a few of the 255 steps that integers leave of it."""
    kinds = ("Convolution", "GroupConvolution")
    return [op.get_friendly_name() for op in network.get_ordered_ops() if op.get_type_name() in kinds][:IN_FLOAT]


def _convert(architecture: Architecture, weights: Mapping[str, NDArray[np.float32]]) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        write_saved_model(as_module(architecture, weights, batch=1), Path(folder))
        network = _resize_channels_first(openvino.convert_model(folder))
    # Else it would name the folder: the same weights are to give the same bytes.
    network.set_rt_info("saved_model", ["conversion_parameters", "input_model"])
    return network


def _resize_channels_first(network: Any) -> Any:
    """Turn resizing of ``(N, H, W, C)`` between two transpositions, as it is converted, into one of ``(N, C, H, W)``.

    Else quantisation takes the rows for the channels, and gives a network that is right for one height of image alone.
    """
    for resize in network.get_ordered_ops():
        if resize.get_type_name() != "Interpolate":
            continue
        before = resize.input_value(0).get_node()
        (after,) = (target.get_node() for target in resize.output(0).get_target_inputs())
        if (before.get_type_name(), after.get_type_name()) != ("Transpose", "Transpose"):
            raise ModelError(
                f"{resize.get_friendly_name()}: expected OpenVINO to convert it between two transpositions, found "
                f"{before.get_type_name()} and {after.get_type_name()}; export with openvino 2026.4"
            )
        doubled = opset.interpolate(
            before.input_value(0),
            np.array([2.0, 2.0], np.float32),
            "linear_onnx",
            "scales",
            coordinate_transformation_mode="half_pixel",
            axes=np.array([2, 3]),
            name=resize.get_friendly_name(),
        )
        after.output(0).replace(doubled.output(0))
    network.validate_nodes_and_infer_types()
    return network


def _files(form: str, network: Any) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        openvino.save_model(network, Path(folder) / FORMS[form][0], compress_to_fp16=True)
        return {name: (Path(folder) / name).read_bytes() for name in FORMS[form]}
