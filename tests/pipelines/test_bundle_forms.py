"""What a training leaves for CPUs to run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from nucseg_ray.imaging.codecs import decode_image
from nucseg_ray.imaging.metrics import match, pool
from nucseg_ray.model.bundle import FLOAT32, FORMS, INT8, REFERENCE, read_bundle
from nucseg_ray.model.processor import multiplies_int8_exactly
from nucseg_ray.model.segmenter import Segmenter
from nucseg_ray.pipelines.bundle_forms import default_form, spread_over_kinds


def summary(**mean_ap: float) -> dict[str, Any]:
    return {kind: {"mean_ap": score} for kind, score in mean_ap.items()}


@pytest.mark.parametrize(
    ("float32", "int8", "form"),
    [
        (summary(all=0.5, rare=0.3), summary(all=0.5, rare=0.3), INT8),
        (summary(all=0.5, rare=0.3), summary(all=0.496, rare=0.4), INT8),
        (summary(all=0.5, rare=0.3), summary(all=0.6, rare=0.294), FLOAT32),  # one kind pays
        (summary(all=0.5, rare=0.3), None, FLOAT32),
        (summary(all=0.49, rare=0.3), summary(all=0.49, rare=0.3), REFERENCE),
        (None, None, REFERENCE),
    ],
)
def test_the_default_is_the_fastest_that_loses_nothing(float32: Any, int8: Any, form: str) -> None:
    summaries = {REFERENCE: summary(all=0.5, rare=0.3), FLOAT32: float32, INT8: int8}
    assert default_form({name: scores for name, scores in summaries.items() if scores}) == form


def test_calibration_sees_every_kind() -> None:
    kinds = ["plenty"] * 500 + ["rare"] * 3 + ["some"] * 40 + ["plenty"] * 100
    chosen = spread_over_kinds(kinds, about=48)
    assert Counter(kinds[number] for number in chosen) == {"plenty": 16, "rare": 3, "some": 16}
    assert len(set(chosen)) == len(chosen)
    assert {0, 642} <= set(chosen)  # from the first to the last


def test_a_trained_bundle_holds_every_form_with_its_scores(tiny_model: Path) -> None:
    bundle = read_bundle(tiny_model)
    able = [form for form in FORMS if form != INT8 or multiplies_int8_exactly()]
    assert bundle.forms == tuple(FORMS)
    assert list(bundle.metrics) == [REFERENCE, *able]
    assert bundle.default_form == default_form(bundle.metrics)
    assert {scores["all"]["images"] for scores in bundle.metrics.values()} == {5}


@pytest.mark.parametrize(("form", "agreement"), [(FLOAT32, 0.97), (INT8, 0.85)])
def test_a_form_finds_the_nuclei_that_the_reference_finds(
    tiny_model: Path, tiny_set: Path, form: str, agreement: float
) -> None:
    if form == INT8 and not multiplies_int8_exactly():
        pytest.skip("this processor has no VNNI")
    images = [decode_image(path.read_bytes(), name=path.name) for path in sorted((tiny_set / "images").iterdir())]
    reference, faster = (Segmenter.load(tiny_model, form=name, threads=2) for name in (REFERENCE, form))
    matched = pool([match(reference.segment(image), faster.segment(image)) for image in images])
    assert matched.n_truth > 50
    assert matched.ap[0] >= agreement
