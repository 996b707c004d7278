"""Which label settings are tried, and which are kept; that a training tries them, test_training.py tells."""

from __future__ import annotations

from nucseg_ray.imaging.labels import CentreLabels, ForegroundLabels
from nucseg_ray.pipelines.tuning import choose, neighbours


def test_one_setting_at_a_time_is_varied() -> None:
    start = ForegroundLabels(threshold=0.5, min_area_px=20)
    others = neighbours(start)
    assert {variant.threshold for variant in others if variant.min_area_px == 20} == {0.4, 0.45, 0.55, 0.6}
    assert {variant.min_area_px for variant in others if variant.threshold == 0.5} == {10, 40, 80}
    assert len(others) == 7
    assert len(neighbours(CentreLabels())) == 4 + 3 + 5 + 3


def test_each_setting_takes_its_best_value_if_it_gains_enough() -> None:
    start = CentreLabels()
    scores: dict[CentreLabels | ForegroundLabels, float] = dict.fromkeys([start, *neighbours(start)], 0.5)
    scores[CentreLabels(threshold=0.55)] = 0.52
    scores[CentreLabels(threshold=0.6)] = 0.51
    scores[CentreLabels(min_area_px=40)] = 0.5005  # chance
    scores[CentreLabels(least_votes=0.2)] = 0.501
    assert choose(start, scores) == CentreLabels(threshold=0.55, least_votes=0.2)


def test_the_start_stays_where_nothing_is_better() -> None:
    start = ForegroundLabels(threshold=0.45)
    scores: dict[CentreLabels | ForegroundLabels, float] = {
        variant: 0.4 - number / 100 for number, variant in enumerate([start, *neighbours(start)])
    }
    assert choose(start, scores) == start
