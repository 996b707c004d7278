"""Which images of a kind a network is adapted to."""

from __future__ import annotations

import pytest

from nucseg_ray.storage.labelled_images import Sample


@pytest.fixture(scope="module")
def adaptation(script):
    return script("adaptation.py")


def sample(name: str, group: str) -> Sample:
    return Sample(name, f"{name}.png", (), one_mask=True, group=group)


def test_every_group_is_drawn_from_before_any_is_drawn_from_twice(adaptation):
    samples = [sample(f"{group}{number}", group) for group in "abc" for number in range(4)]
    drawn = adaptation.draw(samples, count=7, seed=0)
    assert len({one.image_id for one in drawn}) == 7
    assert {one.group for one in drawn[:3]} == {one.group for one in drawn[3:6]} == set("abc")
    assert drawn == adaptation.draw(samples, count=7, seed=0) != adaptation.draw(samples, count=7, seed=1)


def test_no_more_are_drawn_than_there_are(adaptation):
    assert len(adaptation.draw([sample("a", "a"), sample("b", "a")], count=20, seed=0)) == 2
