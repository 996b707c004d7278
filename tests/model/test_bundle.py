"""A model on disk."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nucseg_ray.errors import MissingInputError, ModelError
from nucseg_ray.imaging.labels import CentreLabels, ForegroundLabels
from nucseg_ray.imaging.normalise import FullRange, Percentile
from nucseg_ray.model.architecture import Architecture
from nucseg_ray.model.bundle import (
    FORMS,
    Bundle,
    add_forms,
    read_arrays,
    read_bundle,
    record_metrics,
    round_weights,
    write_arrays,
    write_bundle,
    write_rounded,
)

ARCHITECTURE = Architecture(
    ("nucleus", "centre_dy", "centre_dx"), decoder_filters=(8, 8, 8, 8), skip_filters=(4, 4, 4, 4)
)
ARRAYS = {"head/kernel:0": np.arange(6, dtype=np.float64).reshape(2, 3) / 7, "head/bias:0": np.float32([1, -0.0])}
Change = Callable[[dict[str, Any]], None]


def write(folder: Path, **changes: Any) -> Bundle:
    settings: dict[str, Any] = {
        "architecture": ARCHITECTURE,
        "normalisation": Percentile(low=2.0),
        "diameter_px": 24.0,
        "labels": CentreLabels(min_area_px=9),
        "training": {"seed": 4},
    }
    return write_bundle(folder, ARRAYS, **(settings | changes))


def edit(folder: Path, change: Change) -> None:
    path = folder / "model.json"
    stored = json.loads(path.read_text())
    change(stored)
    path.write_text(json.dumps(stored))


def replace_weights(folder: Path, data: bytes) -> None:
    """Replace the weights and their checksum, as someone who means it would."""
    (folder / "weights.npz").write_bytes(data)
    edit(folder, lambda stored: stored["files"].update({"weights.npz": hashlib.sha256(data).hexdigest()}))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written = write(tmp_path / "new" / "model")
    read = read_bundle(tmp_path / "new" / "model")
    assert read == written
    assert read.folder == tmp_path / "new" / "model"
    assert (read.architecture, read.normalisation, read.labels) == (
        ARCHITECTURE,
        Percentile(low=2.0),
        CentreLabels(min_area_px=9),
    )
    assert (read.training, read.metrics) == ({"seed": 4}, {})
    weights = read.weights()
    assert list(weights) == list(ARRAYS)
    for name, array in weights.items():
        assert array.dtype == np.float32
        assert array.tobytes() == ARRAYS[name].astype(np.float32).tobytes()
    assert sorted(path.name for path in read.folder.iterdir()) == ["model.json", "weights.npz"]


def test_the_fingerprint_is_of_what_decides_results(tmp_path: Path) -> None:
    first = write(tmp_path / "a")
    record_metrics(tmp_path / "a", {"ap50": 0.9}, default_form="tensorflow")
    assert read_bundle(tmp_path / "a").metrics == {"ap50": 0.9}
    assert read_bundle(tmp_path / "a").fingerprint == first.fingerprint
    assert write(tmp_path / "b", training={"seed": 5}).fingerprint == first.fingerprint
    others = [
        write(tmp_path / "c", labels=CentreLabels(min_area_px=10)),
        write(tmp_path / "g", diameter_px=25.0),
        write(tmp_path / "d", normalisation=FullRange()),
        write(tmp_path / "e", architecture=replace(ARCHITECTURE, skip_filters=(4, 4, 4, 5))),
        write_bundle(
            tmp_path / "f",
            {**ARRAYS, "head/bias:0": np.float32([1, 0.0])},
            architecture=ARCHITECTURE,
            normalisation=Percentile(low=2.0),
            diameter_px=24.0,
            labels=CentreLabels(min_area_px=9),
            training={},
        ),
    ]
    assert len({first.fingerprint, *(other.fingerprint for other in others)}) == 6


def test_forms_are_added_and_guarded(tmp_path: Path) -> None:
    assert (write(tmp_path).forms, write(tmp_path).default_form) == ((), "tensorflow")
    added = add_forms(tmp_path, {name: name.encode() for names in FORMS.values() for name in names})
    assert added.forms == ("float32", "int8") and added.default_form == "tensorflow"
    assert added.network("int8").read_bytes() == b"network_int8.xml"
    assert added.weights().keys() == ARRAYS.keys()
    record_metrics(tmp_path, {}, default_form="int8")
    assert read_bundle(tmp_path) == replace(added, default_form="int8")
    (tmp_path / "network_float32.bin").write_bytes(b"other")
    with pytest.raises(ModelError, match=r"network_float32\.bin: its SHA-256"):
        read_bundle(tmp_path)
    (tmp_path / "network_float32.bin").unlink()
    with pytest.raises(MissingInputError, match=r"network_float32\.bin: missing"):
        read_bundle(tmp_path)


def test_a_rounded_copy_keeps_all_but_weights_scores_and_where_things_lay(tmp_path: Path) -> None:
    settings = {"data": "/home/lab/set", "index": "s3://lab/index.csv", "maps": "centres", "fold": None, "seed": 4}
    write(tmp_path / "trained", training={"data": "abc", "settings": settings})
    forms = {name: name.encode() for names in FORMS.values() for name in names}
    add_forms(tmp_path / "trained", forms)
    record_metrics(tmp_path / "trained", {"ap50": 0.9}, default_form="int8")
    trained = read_bundle(tmp_path / "trained")
    (tmp_path / "small").mkdir()
    (tmp_path / "small/MODEL_CARD.md").write_text("card")
    small = write_rounded(tmp_path / "small", trained, {name: b"again " + data for name, data in forms.items()})
    told = {"data": "abc", "settings": settings | {"data": "set", "index": "index.csv"}}
    new = {"folder": tmp_path / "small", "fingerprint": small.fingerprint, "training": told, "metrics": {}}
    assert small == replace(trained, **new)
    assert small.fingerprint != trained.fingerprint
    assert small.network("int8").read_bytes() == b"again network_int8.xml"
    assert sorted(path.name for path in small.folder.iterdir()) == sorted([*small.file_names, "MODEL_CARD.md"])
    stored = read_arrays(small.folder / "weights.npz")
    assert list(stored) == list(ARRAYS)
    for name, array in small.weights().items():
        assert (stored[name].dtype, array.dtype) == (np.float16, np.float32)
        np.testing.assert_array_equal(array, ARRAYS[name].astype(np.float16).astype(np.float32))


def test_a_weight_that_float16_cannot_hold_is_named(tmp_path: Path) -> None:
    arrays = {**ARRAYS, "up1_norm/moving_variance:0": np.float32([1, 7e4])}
    trained = write_bundle(
        tmp_path,
        arrays,
        architecture=ARCHITECTURE,
        normalisation=Percentile(),
        diameter_px=24.0,
        labels=CentreLabels(),
        training={},
    )
    with pytest.raises(ModelError, match=r"within float16's ±65504, found others in 'up1_norm/moving_variance:0'"):
        round_weights(trained)


@pytest.mark.parametrize("path", ["nothing", "file"])
def test_no_bundle(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MissingInputError, match=rf"{path}: no model bundle there .*model\.json"):
        read_bundle(tmp_path / path)


@pytest.mark.parametrize(
    "change", [lambda data: data[:-1], lambda data: data[:60] + b"?" + data[61:], lambda data: b""]
)
def test_altered_weights_are_found(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    write(tmp_path)
    path = tmp_path / "weights.npz"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ModelError, match=r"weights\.npz: its SHA-256"):
        read_bundle(tmp_path)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "weights.npz").unlink()
    with pytest.raises(MissingInputError, match=r"weights\.npz: missing"):
        read_bundle(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda stored: stored.update(format=4), "format 3, found 4", id="newer"),
        pytest.param(
            lambda stored: stored.update(diameter_px=0), "expected a diameter_px above 0, found 0.0", id="diameter"
        ),
        pytest.param(lambda stored: stored.pop("format"), "format 3, found None", id="no format"),
        pytest.param(lambda stored: stored.pop("labels"), r"\['labels'\] missing", id="no labels"),
        pytest.param(lambda stored: stored.pop("training"), r"\['training'\] missing", id="no training"),
        pytest.param(lambda stored: stored["files"].update({"extra.bin": "0"}), "nothing else", id="extra file"),
        pytest.param(lambda stored: stored.update(files={"../weights.npz": "0"}), "nothing else", id="traversal"),
        pytest.param(lambda stored: stored.update(files={"/etc/hostname": "0"}), "nothing else", id="absolute"),
        pytest.param(lambda stored: stored.update(files=["weights.npz"]), "nothing else", id="list of files"),
        pytest.param(lambda stored: stored["files"].update({"network_int8.xml": "0"}), "whole forms", id="half a form"),
        pytest.param(lambda stored: stored.update(default_form="int8"), "'int8' is not in it", id="default form"),
        pytest.param(lambda stored: stored.pop("default_form"), r"\['default_form'\] missing", id="no default form"),
        pytest.param(lambda stored: stored["labels"].update(kind="stars"), "stars", id="labels kind"),
        pytest.param(lambda stored: stored["labels"].update(threshold=7), "threshold", id="labels setting"),
        pytest.param(lambda stored: stored["normalisation"].update(kind="z"), "'z' is unknown", id="normalisation"),
        pytest.param(lambda stored: stored["architecture"].update(depth=1), "'depth'", id="architecture"),
        pytest.param(lambda stored: stored["architecture"].update(skip_filters="abcd"), "model.json", id="type"),
        pytest.param(lambda stored: stored.update(architecture=None), "model.json", id="null"),
        pytest.param(lambda stored: stored.update(labels=ForegroundLabels().to_dict()), "the labels need", id="maps"),
    ],
)
def test_an_odd_description_is_refused(tmp_path: Path, change: Change, message: str) -> None:
    write(tmp_path)
    edit(tmp_path, change)
    with pytest.raises(ModelError, match=message):
        read_bundle(tmp_path)


@pytest.mark.parametrize(("text", "message"), [("{", "not readable as JSON"), ("[1]", "found 'list'"), ("", "JSON")])
def test_a_broken_description_is_refused(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path)
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(ModelError, match=message):
        read_bundle(tmp_path)


def test_pickles_are_refused_and_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "sprung",)

    write(tmp_path / "model")
    np.savez(tmp_path / "trap.npz", kernel=np.array([Trap()], object))
    replace_weights(tmp_path / "model", (tmp_path / "trap.npz").read_bytes())
    with pytest.raises(ModelError, match="plain arrays"):
        read_bundle(tmp_path / "model").weights()
    assert not (tmp_path / "sprung").exists()


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.zeros(3))
    write(tmp_path / "good")
    archive = (tmp_path / "good" / "weights.npz").read_bytes()
    for number, data in enumerate([b"", b"text", (tmp_path / "one.npy").read_bytes(), archive[:-20], archive[:90]]):
        write(tmp_path / str(number))
        replace_weights(tmp_path / str(number), data)
        with pytest.raises(ModelError, match=r"weights\.npz: expected an archive of plain arrays"):
            read_bundle(tmp_path / str(number)).weights()


def test_arrays_keep_their_types(tmp_path: Path) -> None:
    arrays = {"a/b:0": np.array(7, np.int64), "c": np.zeros((0, 3), np.float32), "d": np.uint8([1])}
    write_arrays(tmp_path / "state.npz", arrays)
    back = read_arrays(tmp_path / "state.npz")
    assert {name: (array.dtype, array.shape) for name, array in back.items()} == {
        name: (array.dtype, array.shape) for name, array in arrays.items()
    }
    assert back["a/b:0"] == 7


def test_a_bundle_is_read_without_tensorflow(tmp_path: Path) -> None:
    write(tmp_path)
    code = (
        "import sys, pathlib; from nucseg_ray.model.bundle import read_bundle;"
        f"read_bundle(pathlib.Path({str(tmp_path)!r})).weights(); assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
