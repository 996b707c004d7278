"""Which label settings are tried, and which are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from nucseg_ray.imaging.labels import CentreLabels, ForegroundLabels, LabelVariant
from nucseg_ray.model.bundle import FLOAT32, read_bundle
from nucseg_ray.pipelines import tuning
from nucseg_ray.pipelines.crops import PreparedImage, prepare
from nucseg_ray.pipelines.network import ActorPool
from nucseg_ray.pipelines.samples import read_samples
from nucseg_ray.pipelines.tuning import choose, drawn, tune_labels
from nucseg_ray.storage.locations import Location
from nucseg_ray.storage.training_sets import find_training_set


class Scores:
    """Scores settings by how far they are from the best ones, each setting with a weight."""

    def __init__(self, best: CentreLabels, **weights: float) -> None:
        self.best = best
        self.weights = weights
        self.asked: list[Sequence[LabelVariant]] = []

    def __call__(self, variants: Sequence[LabelVariant]) -> list[float]:
        self.asked.append(variants)
        return [self.score(variant) for variant in variants]

    def score(self, variant: LabelVariant) -> float:
        return -sum(
            weight * abs(getattr(variant, name) - getattr(self.best, name)) for name, weight in self.weights.items()
        )


def test_each_setting_goes_to_its_best_value_if_that_gains_enough() -> None:
    best = CentreLabels(threshold=0.55, least_votes=0.2, min_area_px=40)
    scores = Scores(best, threshold=1, least_votes=1, min_area_px=0.0009 / 20)  # 20 to 40 px gain less than is believed
    assert choose(CentreLabels(), scores) == replace(best, min_area_px=20)
    assert [len(asked) for asked in scores.asked] == [5, 4, 6, 4] * 2
    assert sorted(variant.threshold for variant in scores.asked[0]) == [0.4, 0.45, 0.5, 0.55, 0.6]
    assert all(replace(variant, threshold=0.5) == CentreLabels() for variant in scores.asked[0])


def test_a_setting_is_tried_with_the_others_as_they_have_become() -> None:
    def score(variants: Sequence[LabelVariant]) -> list[float]:
        """A high least certainty is good, and then, but only then, a low threshold is better than a high one."""
        return [
            10 * variant.least_certainty + variant.threshold * (-1 if variant.least_certainty > 0.8 else 0.1)
            for variant in variants
            if isinstance(variant, CentreLabels)
        ]

    assert choose(CentreLabels(), score) == CentreLabels(threshold=0.4, least_certainty=0.88)


def test_nothing_changes_where_nothing_is_better_and_no_second_round_is_run() -> None:
    scores = Scores(start := CentreLabels(), threshold=1, least_certainty=1)
    assert choose(start, scores) == start
    assert len(scores.asked) == 4
    one_map = ForegroundLabels(threshold=0.45)
    assert choose(one_map, lambda variants: [0.4 - number / 100 for number in range(len(variants))]) == one_map


@pytest.mark.parametrize(("n_px", "drawn_of_them"), [(1000, 256), (2 << 20, 50), (1 << 30, 1)])
def test_images_are_drawn_from_everywhere_as_far_as_they_can_be_held(n_px: int, drawn_of_them: int) -> None:
    images = [
        PreparedImage(f"{number:03}", "kind", block=0, row=number, diameter_px=20.0, n_px=n_px) for number in range(500)
    ]
    names = drawn(images)
    assert len(set(names)) == len(names) == drawn_of_them
    assert names == drawn(images)
    if drawn_of_them > 1:
        assert min(names) < "050" and max(names) > "450"


def test_of_few_images_all_are_drawn() -> None:
    images = [PreparedImage(name, "kind", block=0, row=0, diameter_px=20.0, n_px=1000) for name in "abcdefg"]
    assert sorted(drawn(images)) == list("abcdefg")


def test_by_images_that_are_enough_settings_that_lose_all_nuclei_are_mended(
    tiny_model: Path, tiny_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = read_bundle(tiny_model)
    lost = replace(trained, labels=replace(trained.labels, min_area_px=10_000))
    found = find_training_set(Location(str(tiny_set)))
    images = prepare(read_samples(found), normalisation=trained.normalisation).images
    pool = ActorPool(form=FLOAT32, actors=1, cpus=1.0, threads=2, use_gpu=False)
    assert tune_labels(lost, found, images, actors=pool) == lost.labels  # 24 are not
    monkeypatch.setattr(tuning, "FEWEST_IMAGES", 24)
    mended = tune_labels(lost, found, images, actors=pool)
    assert mended.min_area_px in lost.labels.tried["min_area_px"]
