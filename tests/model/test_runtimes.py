"""The runtimes behind the seam: each against TensorFlow, the reference."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino
import pytest

from nucseg_ray.errors import ModelError, UsageError
from nucseg_ray.model import predictor
from nucseg_ray.model.bundle import FLOAT32, FORMS, INT8, REFERENCE, Bundle, read_bundle, record_metrics
from nucseg_ray.model.predictor import Predictor, Runtime, choose_form, load_predictor
from nucseg_ray.model.processor import multiplies_int8_exactly
from nucseg_ray.model.segmenter import Segmenter
from nucseg_ray.model.tiled_network import Tiling

Draw = Callable[..., np.ndarray]
# One shape is that of calibration. Of other heights, a network quantised by rows instead of channels would go wrong.
SHAPES = [(128, 128), (64, 192), (320, 256)]


@pytest.fixture(scope="module")
def load(exported: Bundle) -> Callable[[str], Predictor]:
    """Give the predictor of a form, loaded once."""
    loaded: dict[str, Predictor] = {}

    def load_form(form: str) -> Predictor:
        if form == INT8 and not multiplies_int8_exactly():
            pytest.skip("this processor has no VNNI")
        if form not in loaded:
            loaded[form] = load_predictor(exported, form=form, threads=2)
        return loaded[form]

    return load_form


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("form", "mean", "largest"), [(FLOAT32, 0.006, 0.03), (INT8, 0.15, 1.5)])
def test_a_form_predicts_what_the_reference_predicts(
    load: Callable[[str], Predictor], draw: Draw, shape: tuple[int, int], form: str, mean: float, largest: float
) -> None:
    images = np.stack([draw(*shape, seed=seed) for seed in range(3)])
    expected, found = load(REFERENCE).predict(images), load(form).predict(images)
    assert found.shape == expected.shape == (3, *shape, 3) and found.dtype == expected.dtype == np.float32
    # In units of what the maps vary by: an untrained network varies by a few hundredths.
    difference = np.abs(found - expected) / expected.std()
    # An untrained one is erratic in single pixels, too.
    assert difference.mean() <= mean and np.quantile(difference, 0.999) <= largest


@pytest.mark.parametrize("form", [REFERENCE, *FORMS])
def test_an_image_does_not_depend_on_its_batch(load: Callable[[str], Predictor], draw: Draw, form: str) -> None:
    images = np.stack([draw(128, 192, seed=seed) for seed in range(7)])
    together = load(form).predict(images)
    assert len({maps.tobytes() for maps in together}) == 7
    np.testing.assert_array_equal(load(form).predict(images[::-1].copy())[::-1], together)
    for image, maps in zip(images, together, strict=True):
        np.testing.assert_array_equal(load(form).predict(image[np.newaxis])[0], maps)


@pytest.mark.parametrize("form", list(FORMS))
def test_more_shapes_than_are_kept_compiled(load: Callable[[str], Predictor], draw: Draw, form: str) -> None:
    first = load(form).predict(draw(64, 64)[np.newaxis])
    for side in range(64, 64 * 14, 64):
        assert load(form).predict(draw(64, side)[np.newaxis]).shape == (1, 64, side, 3)
    np.testing.assert_array_equal(load(form).predict(draw(64, 64)[np.newaxis]), first)


def test_a_form_does_not_tell_where_it_was_made(exported: Bundle) -> None:
    for names in FORMS.values():
        described = (exported.folder / names[0]).read_text(encoding="utf-8")
        assert described.count('<input_model value="saved_model" />') == 1 and "/tmp" not in described


def test_integers_begin_after_the_first_convolutions(exported: Bundle) -> None:
    network = openvino.Core().read_model(exported.folder / FORMS[INT8][0])
    convolutions = [op for op in network.get_ordered_ops() if op.get_type_name().endswith("Convolution")]
    in_float = [op.input_value(0).get_node().get_type_name() != "FakeQuantize" for op in convolutions]
    assert in_float[:3] == [True, True, False] and sum(in_float) < len(in_float) / 10


def test_a_segmenter_runs_the_default_form(exported: Bundle, draw: Draw, tmp_path: Path) -> None:
    image = (draw(200, 150)[..., 0] * 200).astype(np.uint8)
    tiling = Tiling(tile_px=128, overlap_px=32)
    by_form = {
        form: Segmenter.load(exported.folder, form=form, tiling=tiling).maps(image) for form in (REFERENCE, FLOAT32)
    }
    assert (by_form[REFERENCE] != by_form[FLOAT32]).any()  # close, but to be told apart
    shutil.copytree(exported.folder, tmp_path / "model")
    for default in by_form:
        record_metrics(tmp_path / "model", {}, default_form=default)
        np.testing.assert_array_equal(Segmenter.load(tmp_path / "model", tiling=tiling).maps(image), by_form[default])


@pytest.mark.parametrize("form", [pytest.param(REFERENCE, marks=pytest.mark.slow), *FORMS])
def test_a_segmenter_turns_and_mirrors_in_every_form(exported: Bundle, draw: Draw, form: str) -> None:
    if form == INT8 and not multiplies_int8_exactly():
        pytest.skip("this processor has no VNNI")
    image = (draw(128, 192)[..., 0] * 200).astype(np.uint8)

    def nucleus_map(seen: np.ndarray, **wanted: bool) -> np.ndarray:
        segmenter = Segmenter.load(exported.folder, form=form, nucleus_diameter_px=exported.diameter_px, **wanted)
        return segmenter.maps(np.ascontiguousarray(seen))[..., 0].astype(float)

    plain = [np.rot90(nucleus_map(np.rot90(image, turns)), -turns) for turns in range(4)]
    mirrored = [np.rot90(nucleus_map(np.rot90(image.T, turns)), -turns).T for turns in range(4)]
    mean = np.mean(plain + mirrored, axis=0)
    found = nucleus_map(image, tta=True)
    np.testing.assert_allclose(found, mean, atol=1.01)  # of 255; each map is rounded
    assert np.abs(found - nucleus_map(image)).max() > 2


@pytest.mark.parametrize(
    ("default", "runtime", "use_gpu", "exact", "form"),
    [
        (INT8, "auto", False, True, INT8),
        (INT8, "auto", False, False, FLOAT32),
        (INT8, "auto", True, True, REFERENCE),
        (INT8, "openvino", False, True, INT8),
        (INT8, "openvino", False, False, FLOAT32),
        (INT8, "tensorflow", False, True, REFERENCE),
        (INT8, "tensorflow", True, True, REFERENCE),
        (FLOAT32, "auto", False, True, FLOAT32),
        (REFERENCE, "auto", False, True, REFERENCE),
        (REFERENCE, "openvino", False, True, FLOAT32),
    ],
)
def test_the_form_that_runs(
    exported: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    default: str,
    runtime: Runtime,
    use_gpu: bool,
    exact: bool,
    form: str,
) -> None:
    monkeypatch.setattr(predictor, "multiplies_int8_exactly", lambda: exact)
    shutil.copytree(exported.folder, tmp_path / "model")
    record_metrics(tmp_path / "model", {}, default_form=default)
    assert choose_form(read_bundle(tmp_path / "model"), runtime=runtime, use_gpu=use_gpu) == form


def test_what_cannot_run_is_refused(exported: Bundle, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="--runtime openvino runs on CPUs, --use-gpu asks for a GPU"):
        choose_form(exported, runtime="openvino", use_gpu=True)
    with pytest.raises(UsageError, match="holds no form for it; use auto or tensorflow"):
        choose_form(bundle, runtime="openvino", use_gpu=False)
    assert choose_form(bundle, runtime="auto", use_gpu=False) == REFERENCE
    with pytest.raises(ModelError, match="expected the network in the form 'float32', found only weights"):
        load_predictor(bundle, form=FLOAT32, threads=1)
    monkeypatch.setattr(predictor, "multiplies_int8_exactly", lambda: False)
    with pytest.raises(ModelError, match="expected a processor with VNNI"):
        load_predictor(exported, form=INT8, threads=1)


@pytest.mark.parametrize(
    ("text", "exact"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512_vnni\nprocessor\t: 1\n", True),
        ("processor\t: 0\nflags\t\t: fpu avx2 avx_vnni\n", True),
        ("processor\t: 0\nmodel name\t: avx_vnni\nflags\t\t: fpu avx2 avx512f\nvmx flags\t: ept\n", False),
        ("processor\t: 0\nFeatures\t: fp asimd asimddp\n", True),
        ("processor\t: 0\nFeatures\t: fp asimd\n", False),
        ("", False),
    ],
)
def test_processors_are_told_apart(tmp_path: Path, text: str, exact: bool) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert multiplies_int8_exactly(tmp_path / "cpuinfo") is exact
    assert multiplies_int8_exactly(tmp_path / "none") is False
