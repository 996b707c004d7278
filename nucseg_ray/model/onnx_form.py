"""The network as ONNX, which many runtimes read. Needs TensorFlow and tf2onnx, the extra ``onnx``."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from nucseg_ray.errors import ModelError, UsageError

# The opset that tf2onnx is tested with most, and that runtimes since 2021 know.
OPSET = 15
FREE_SIZES = ("N", "H", "W")


def check_onnx_installed() -> None:
    """Say so before the work where the packages are missing.

    Raises
    ------
    UsageError
        tf2onnx or onnx is not installed.
    """
    missing = [name for name in ("tf2onnx", "onnx") if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"--to onnx needs {' and '.join(missing)}, not installed here; install nucseg_ray[onnx], or export with "
            "--to savedmodel"
        )


def to_onnx(module: Any) -> bytes:
    """Turn what :func:`nucseg_ray.model.saved_model.as_module` gave into an ONNX file, checked.

    Names of input and output, types and free sizes are those of the module.

    Raises
    ------
    UsageError
        tf2onnx or onnx is not installed.
    ModelError
        The installed versions turned it into something that is not plain ONNX.
    """
    check_onnx_installed()
    import onnx
    import tf2onnx.convert

    network, _ = tf2onnx.convert.from_function(module.maps, input_signature=module.maps.input_signature, opset=OPSET)
    for unused in [opset for opset in network.opset_import if opset.domain]:
        network.opset_import.remove(unused)  # which some runtimes would ask for; a node of it fails the check below
    for tensor in (network.graph.input[0], network.graph.output[0]):
        for size, name in zip(tensor.type.tensor_type.shape.dim, FREE_SIZES, strict=False):
            size.dim_param = name
    try:
        # What tf2onnx cannot convert it leaves in the graph as it is, and goes on.
        onnx.checker.check_model(network, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(
            f"the network came out of tf2onnx {tf2onnx.__version__} as invalid ONNX ({error}); install the versions "
            "that requirements.lock names"
        ) from error
    return bytes(network.SerializeToString())
