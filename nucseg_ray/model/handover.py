"""A network for other software: as files, with what to do with pixels before it and with maps after it."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nucseg_ray.imaging.labels import CentreLabels, ForegroundLabels
from nucseg_ray.imaging.normalise import FullRange, Percentile
from nucseg_ray.model.architecture import INPUT, OUTPUT, STRIDE
from nucseg_ray.model.bundle import Bundle
from nucseg_ray.model.onnx_form import OPSET, check_onnx_installed, to_onnx
from nucseg_ray.model.tiled_network import SIDE_STEP_PX, Tiling

SAVED_MODEL, ONNX = "saved_model", "model.onnx"
PREPROCESSING, README = "preprocessing.json", "README.txt"

_NORMALISE = {
    FullRange: """\
def normalise(image):
    return image.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)
""",
    Percentile: """\
def noise(image):  # standard deviation of white noise, in the brightest channel
    plane = image if image.ndim == 2 else image[:, :, image.sum(axis=(0, 1)).argmax()]
    if min(plane.shape) < 3:
        return 0.0
    p = plane.astype(np.float32)
    rows = p[:-2] - 2 * p[1:-1] + p[2:]
    laplacian = rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:]
    return np.median(np.abs(laplacian)) / 0.6745 / 6

def normalise(image):  # the percentiles are over all channels together
    low, high = np.percentile(image, [settings["low"], settings["high"]])
    stretch = max(high - low, settings["least_range"], settings["least_range_noise"] * noise(image))
    return np.clip((image.astype(np.float32) - np.float32(low)) / np.float32(stretch), 0, 1)
""",
}
_RUN = {
    ONNX: """\
import onnxruntime

network = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
(maps,) = network.run(["maps"], {"image": batch})
""",
    SAVED_MODEL: """\
import tensorflow as tf

network = tf.saved_model.load("saved_model").signatures["serving_default"]
maps = network(image=tf.constant(batch))["maps"].numpy()
""",
}
_LABELS = {
    ForegroundLabels: """\
Nuclei are the 4-connected components of pixels whose map "nucleus" is above 255 * threshold. Holes that one nucleus
alone encloses are filled, nuclei under min_area_px / scale ** 2 dropped, the rest numbered in raster order.
""",
    CentreLabels: """\
Foreground is where the map "nucleus" is above 255 * threshold. Each of its pixels votes for the centre of its nucleus:
that lies (map - 128) * offset_step_px / scale pixels below ("centre_dy") and to the right ("centre_dx") of it. Heaps of
votes are the nuclei, if they hold at least least_votes of what a disc of their size would cast; a pixel belongs to the
one whose centre its vote is nearest to. Pixels that lie apart from the largest piece of their nucleus go, one after the
other, to it where they touch it, else to any nucleus that they touch, or become one of their own. Nuclei over whose
pixels the map "nucleus" is below 255 * least_certainty on average are dropped. Holes that one nucleus alone encloses
are filled, nuclei under min_area_px / scale ** 2 dropped, the rest numbered in raster order.
""",
}


def export_network(bundle: Bundle, folder: Path, *, networks: Sequence[str]) -> None:
    """Write a bundle's network as ``SAVED_MODEL``, ``ONNX`` or both into a folder, and how to use it.

    Raises
    ------
    UsageError
        ONNX is asked for, and what it needs is not installed.
    ModelError
        The bundle's weights do not fit its network, or it cannot be turned into ONNX.
    """
    if ONNX in networks:
        check_onnx_installed()
    from nucseg_ray.model.saved_model import as_module, write_saved_model

    module = as_module(bundle.architecture, bundle.weights())
    if SAVED_MODEL in networks:
        write_saved_model(module, folder / SAVED_MODEL)
    if ONNX in networks:
        (folder / ONNX).write_bytes(to_onnx(module))
    described = json.dumps(_preprocessing(bundle, networks), indent=2)
    (folder / PREPROCESSING).write_text(described + "\n", encoding="utf-8")
    (folder / README).write_text(_readme(bundle, networks), encoding="utf-8")


def _preprocessing(bundle: Bundle, networks: Sequence[str]) -> dict[str, Any]:
    names = list(bundle.architecture.map_names)
    made_with = ["nucseg_ray", "tensorflow", *(["tf2onnx", "onnx"] if ONNX in networks else [])]
    return {
        "format": 1,
        "model": bundle.fingerprint,
        "networks": list(networks),
        "input": {
            "name": INPUT,
            "dtype": "float32",
            "shape": ["N", "H", "W", 3],
            "range": [0.0, 1.0],
            "sides_multiple_of": STRIDE,
            "nucleus_diameter_px": bundle.diameter_px,
        },
        "output": {
            "name": OUTPUT,
            "dtype": "float32",
            "shape": ["N", "H", "W", len(names)],
            "range": [0.0, 1.0],
            "maps": names,
        },
        "before": {
            "grey_to_rgb": "repeat the channel",
            "normalisation": bundle.normalisation.to_dict(),
            "pad": {"where": "bottom and right", "mode": "symmetric", "to_sides_multiple_of": SIDE_STEP_PX},
            "tiles": {"longer_than_px": Tiling().tile_px, "overlap_px": Tiling().overlap_px},
        },
        "after": {"crop": "to the size before padding", "maps_to_uint8": "round(255 * maps)"},
        "labels": bundle.labels.to_dict(),
        **({"onnx_opset": OPSET} if ONNX in networks else {}),
        "made_with": {name: importlib.metadata.version(name) for name in made_with},
    }


def _readme(bundle: Bundle, networks: Sequence[str]) -> str:
    """Say how to use the folder; the indented lines are a Python program that runs in it."""
    code = f"""\
import json
from pathlib import Path
import cv2
import numpy as np

settings = json.loads(Path("preprocessing.json").read_text())["before"]["normalisation"]

{_NORMALISE[type(bundle.normalisation)]}
image = np.load("image.npy")  # one image of yours, (H, W) or (H, W, 3), uint8 or uint16
diameter = {bundle.diameter_px:g}  # of its nuclei, in pixels
scale = {bundle.diameter_px:g} / diameter

def resize(pixels, height, width):
    smaller = height * width < pixels.shape[0] * pixels.shape[1]
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)

rgb = normalise(image) if image.ndim == 3 else np.repeat(normalise(image)[:, :, np.newaxis], 3, axis=2)
height, width = (round(side * scale) for side in image.shape[:2])
rgb = resize(rgb, height, width)
padded = np.pad(rgb, [(0, -height % {SIDE_STEP_PX}), (0, -width % {SIDE_STEP_PX}), (0, 0)], mode="symmetric")
batch = padded[np.newaxis]

{_RUN[ONNX if ONNX in networks else SAVED_MODEL]}
maps = resize(maps[0, :height, :width], *image.shape[:2]).reshape(*image.shape[:2], -1)
maps = np.rint(255 * maps).astype(np.uint8)
"""
    indented = "".join(f"    {line}\n" if line else "\n" for line in code.splitlines())
    holds = {SAVED_MODEL: "a TensorFlow SavedModel (signature serving_default)", ONNX: f"ONNX, opset {OPSET}"}
    told = "\n".join(f"{name}: {holds[name]}" for name in networks)
    return f"""\
A network that finds nuclei, exported by nucseg_ray (model {bundle.fingerprint})

{told}
preprocessing.json: every setting that is needed before and after the network

Input "{INPUT}": (N, H, W, 3) float32 in [0, 1], H and W multiples of {STRIDE}; N, H and W are free.
Output "{OUTPUT}": (N, H, W, {len(bundle.architecture.map_names)}) float32 in [0, 1]: \
{", ".join(bundle.architecture.map_names)}.

From pixels to maps, in Python, with NumPy, OpenCV and a runtime:

{indented}
The network knows nuclei of about {bundle.diameter_px:g} pixels across: an image is brought there by "scale". \
nucseg_ray takes the
nearest step of an eighth of an octave, from 1/8 to 4.

An image whose side is then longer than {Tiling().tile_px} pixels is cut into tiles of that size that overlap by at \
least {Tiling().overlap_px},
normalised and resized as a whole before, and the maps blended.

From maps to labels, with the settings under "labels" in preprocessing.json:

{_LABELS[type(bundle.labels)]}
Where nucseg_ray is installed, nucseg_ray.imaging.labels.labels_from_dict, given these settings, makes what does that:
its label(maps, scale=scale) gives the label image (scale: 1 where the image was not resized).
"""
