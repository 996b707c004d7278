"""The bundle: a folder with ``model.json``, the weights, and the network in forms that CPUs run faster.

Reading one executes nothing and needs no TensorFlow.

Everything that turns pixels into labels is in it (preprocessing, network, label settings), so that training and
inference cannot drift apart.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_ray import __version__
from nucseg_ray.errors import MissingInputError, ModelError
from nucseg_ray.imaging.labels import LabelVariant, labels_from_dict
from nucseg_ray.imaging.normalise import Normalisation, normalisation_from_dict
from nucseg_ray.model.architecture import Architecture, architecture_from_dict

FORMAT = 3
MODEL_JSON = "model.json"
WEIGHTS = "weights.npz"
# The network runs from its weights (the reference), or in one of these forms, the fastest last, with the files of each.
REFERENCE, FLOAT32, INT8 = "tensorflow", "float32", "int8"
FORMS: Mapping[str, tuple[str, str]] = {
    name: (f"network_{name}.xml", f"network_{name}.bin") for name in (FLOAT32, INT8)
}
_DECIDES_RESULTS = ("format", "architecture", "normalisation", "diameter_px", "labels", "files")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A model on disk: its network, its preprocessing, its way to labels, and where it came from.

    ``diameter_px`` is the diameter that nuclei had, on the whole, in the images that the network was trained on.
    """

    folder: Path
    architecture: Architecture
    normalisation: Normalisation
    diameter_px: float
    labels: LabelVariant
    forms: tuple[str, ...]
    default_form: str
    training: Mapping[str, Any]
    metrics: Mapping[str, Any]
    fingerprint: str

    @property
    def file_names(self) -> tuple[str, ...]:
        """The names of its files in the folder, ``model.json`` last: a copy is no bundle before it is whole."""
        return (WEIGHTS, *(name for form in self.forms for name in FORMS[form]), MODEL_JSON)

    def network(self, form: str) -> Path:
        """Give the file of the network in one of the bundle's forms.

        Raises
        ------
        ModelError
            The bundle does not hold that form.
        """
        if form not in self.forms:
            held = ", ".join(self.forms) or "weights"
            raise ModelError(f"{self.folder}: expected the network in the form {form!r}, found only {held}")
        return self.folder / FORMS[form][0]

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """Read the weights, by name: float32, also where they are stored as float16.

        Raises
        ------
        ModelError
            The file is not a plain archive of arrays.
        """
        return {name: np.asarray(array, np.float32) for name, array in read_arrays(self.folder / WEIGHTS).items()}


def write_bundle(
    folder: Path,
    weights: Mapping[str, NDArray[np.generic]],
    *,
    architecture: Architecture,
    normalisation: Normalisation,
    diameter_px: float,
    labels: LabelVariant,
    training: Mapping[str, Any],
) -> Bundle:
    """Write a bundle; ``model.json`` comes last, so that a folder without one is no bundle."""
    folder.mkdir(parents=True, exist_ok=True)
    write_arrays(folder / WEIGHTS, {name: np.asarray(array, np.float32) for name, array in weights.items()})
    _write_json(
        folder / MODEL_JSON,
        {
            "format": FORMAT,
            "architecture": architecture.to_dict(),
            "normalisation": normalisation.to_dict(),
            "diameter_px": diameter_px,
            "labels": labels.to_dict(),
            "training": dict(training),
            "metrics": {},
            "default_form": REFERENCE,
            "versions": _versions(),
            "files": {WEIGHTS: _sha256(folder / WEIGHTS)},
        },
    )
    return read_bundle(folder)


def add_forms(folder: Path, files: Mapping[str, bytes]) -> Bundle:
    """Put forms of the network (file name to content, names as in ``FORMS``) into a bundle."""
    for name, content in files.items():
        _write_bytes(folder / name, content)
    stored = json.loads((folder / MODEL_JSON).read_text(encoding="utf-8"))
    stored["files"] |= {name: _sha256(folder / name) for name in files}
    _write_json(folder / MODEL_JSON, stored)
    return read_bundle(folder)


def set_labels(folder: Path, labels: LabelVariant) -> Bundle:
    """Give a bundle other label settings."""
    stored = json.loads((folder / MODEL_JSON).read_text(encoding="utf-8"))
    _write_json(folder / MODEL_JSON, {**stored, "labels": labels.to_dict()})
    return read_bundle(folder)


def round_weights(bundle: Bundle) -> dict[str, NDArray[np.float16]]:
    """Give the weights of a bundle as float16: half the size.

    Raises
    ------
    ModelError
        A weight is too large for it.
    """
    with np.errstate(over="ignore"):
        rounded = {name: array.astype(np.float16) for name, array in bundle.weights().items()}
    too_large = [name for name, array in rounded.items() if not np.isfinite(array).all()]
    if too_large:
        raise ModelError(
            f"{bundle.folder}: expected weights within float16's ±65504, found others in {too_large[0]!r}; train it "
            "again, at a lower --learning-rate"
        )
    return rounded


def write_rounded(folder: Path, bundle: Bundle, forms: Mapping[str, bytes]) -> Bundle:
    """Write a copy of a bundle with the weights of :func:`round_weights`, and forms that were made of these.

    Everything else stays what it was, but for the scores, which were those of other weights; other files in the folder
    stay there. Of the places in the settings of its training only the last names stay: the others are the business of
    whoever trained it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_arrays(folder / WEIGHTS, round_weights(bundle))
    for name, content in forms.items():
        _write_bytes(folder / name, content)
    stored = json.loads((bundle.folder / MODEL_JSON).read_text(encoding="utf-8"))
    stored |= {"metrics": {}, "files": {name: _sha256(folder / name) for name in (WEIGHTS, *forms)}}
    settings = stored["training"].get("settings", {})
    settings |= {name: PurePath(value).name for name, value in settings.items() if isinstance(value, str)}
    _write_json(folder / MODEL_JSON, stored)
    return read_bundle(folder)


def record_metrics(folder: Path, metrics: Mapping[str, Any], *, default_form: str) -> None:
    """Put the scores of a model, and the form that CPUs are to run, into its ``model.json``."""
    stored = json.loads((folder / MODEL_JSON).read_text(encoding="utf-8"))
    _write_json(folder / MODEL_JSON, {**stored, "metrics": dict(metrics), "default_form": default_form})


def read_bundle(folder: Path) -> Bundle:
    """Read and check a bundle.

    Raises
    ------
    MissingInputError
        There is no bundle in the folder.
    ModelError
        It is of another format, incomplete, or its files are not those it was written with.
    """
    path = folder / MODEL_JSON
    if not path.is_file():
        raise MissingInputError(f"{folder}: no model bundle there (expected a folder with {MODEL_JSON} in it)")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path}: not readable as JSON ({error}); copy the bundle again") from error
    if not isinstance(stored, dict) or stored.get("format") != FORMAT:
        found = stored.get("format") if isinstance(stored, dict) else type(stored).__name__
        raise ModelError(
            f"{path}: expected a bundle of format {FORMAT}, found {found!r}; train it again, or use the "
            "version that wrote it"
        )
    missing = {*_DECIDES_RESULTS, "default_form", "training", "metrics"} - set(stored)
    if missing:
        raise ModelError(f"{path}: {sorted(missing)} missing; copy the bundle again")
    forms = _check_files(folder, stored["files"])
    if stored["default_form"] not in (REFERENCE, *forms):
        raise ModelError(f"{path}: its default form {stored['default_form']!r} is not in it; copy the bundle again")
    try:
        architecture = architecture_from_dict(stored["architecture"])
        normalisation = normalisation_from_dict(stored["normalisation"])
        diameter_px = float(stored["diameter_px"])
        labels = labels_from_dict(stored["labels"])
    except (ValueError, TypeError) as error:  # an entry of another JSON type than was written
        raise ModelError(f"{path}: {error}") from error
    if not 0 < diameter_px < math.inf:
        raise ModelError(f"{path}: expected a diameter_px above 0, found {diameter_px}; copy the bundle again")
    if labels.map_names != architecture.map_names:
        raise ModelError(
            f"{path}: the labels need the maps {labels.map_names}, the network gives {architecture.map_names}"
        )
    return Bundle(
        folder=folder,
        architecture=architecture,
        normalisation=normalisation,
        diameter_px=diameter_px,
        labels=labels,
        forms=forms,
        default_form=stored["default_form"],
        training=stored["training"],
        metrics=stored["metrics"],
        fingerprint=_fingerprint(stored),
    )


def write_arrays(path: Path, arrays: Mapping[str, NDArray[np.generic]]) -> None:
    """Write arrays by name as an uncompressed ``.npz``, atomically."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **dict(arrays))
    os.replace(temporary, path)


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read what :func:`write_arrays` wrote. Pickled objects are refused.

    Raises
    ------
    ModelError
        The file is not such an archive.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path}: expected an archive of plain arrays; {error}") from error


def _check_files(folder: Path, files: Any) -> tuple[str, ...]:
    """Check that the files are those the bundle was written with; give the forms of the network among them."""
    forms = tuple(form for form, names in FORMS.items() if isinstance(files, dict) and set(names) <= set(files))
    expected = {WEIGHTS, *(name for form in forms for name in FORMS[form])}
    if not isinstance(files, dict) or set(files) != expected:
        raise ModelError(f"{folder / MODEL_JSON}: expected it to name {WEIGHTS} and whole forms of it, nothing else")
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            raise MissingInputError(f"{path}: missing from the bundle; copy the whole folder again")
        if _sha256(path) != expected:
            raise ModelError(f"{path}: its SHA-256 is not the one in {MODEL_JSON}; the file was altered or cut short")
    return forms


def _fingerprint(stored: Mapping[str, Any]) -> str:
    decisive = json.dumps({key: stored[key] for key in _DECIDES_RESULTS}, sort_keys=True)
    return hashlib.sha256(decisive.encode()).hexdigest()[:16]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    _write_bytes(path, (json.dumps(content, indent=2) + "\n").encode())


def _write_bytes(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def _versions() -> dict[str, str]:
    # A submitted job runs from the uploaded source; this package need not be installed there, or is another version.
    installed = {name: importlib.metadata.version(name) for name in ("ray", "tensorflow", "numpy")}
    return {"nucseg_ray": __version__, **installed}
