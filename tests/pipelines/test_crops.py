"""The stream of training crops, against a plain loop."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucseg_ray.imaging.augment import Augmentation, Subject, centre_crop, random_crop
from nucseg_ray.imaging.codecs import as_rgb
from nucseg_ray.imaging.diameters import nuclei_of, typical_diameter
from nucseg_ray.imaging.labels import CentreLabels
from nucseg_ray.imaging.normalise import Percentile
from nucseg_ray.imaging.synthetic import SiteLook, render_site
from nucseg_ray.imaging.targets import training_targets
from nucseg_ray.pipelines.crops import (
    CropPlan,
    Prepared,
    PreparedImage,
    Share,
    crop_batches,
    draw_epoch,
    image_weights,
    prepare,
    validation_crops,
)
from nucseg_ray.pipelines.rows import pack, to_table
from nucseg_ray.pipelines.samples import SAMPLE_SCHEMA

PLAN = CropPlan(
    crops_per_epoch=40, crop_px=64, diameter_px=20.0, labels=CentreLabels(), seed=11, augmentation=Augmentation()
)


def image(kind: str, *, n_px: int = 64 * 64, diameter_px: float = 20.0) -> PreparedImage:
    return PreparedImage("id", kind, 0, 0, diameter_px, n_px)


@given(
    weights=st.lists(st.floats(0.01, 10), min_size=1, max_size=60),
    n_crops=st.integers(1, 500),
    seed=st.integers(0, 2**31),
    epoch=st.integers(0, 500),
)
@settings(max_examples=100, deadline=None)
def test_an_image_comes_as_often_as_its_weight_says(weights: list[float], n_crops: int, seed: int, epoch: int) -> None:
    drawn = draw_epoch(np.array(weights), n_crops=n_crops, seed=seed, epoch=epoch)
    assert drawn.shape == (n_crops,) and drawn.min() >= 0 and drawn.max() < len(weights)
    expected = n_crops * np.array(weights) / sum(weights)
    assert (np.abs(np.bincount(drawn, minlength=len(weights)) - expected) < 1 + 1e-6).all()


@given(counts=st.lists(st.integers(1, 60), min_size=1, max_size=5))
def test_a_kind_weighs_as_the_root_of_its_number(counts: list[int]) -> None:
    images = [image(f"kind {number}") for number, count in enumerate(counts) for _ in range(count)]
    weights = image_weights(images, crop_px=64, diameter_px=20.0)
    of_kind = [weights[[each.kind == f"kind {number}" for each in images]].sum() for number in range(len(counts))]
    np.testing.assert_allclose(of_kind, np.sqrt(counts))


def test_an_image_with_more_to_show_weighs_more() -> None:
    small, one_crop, sixteen, huge = (image("a", n_px=n * 64 * 64 // 4) for n in (1, 4, 64, 6400))
    magnified = image("a", n_px=64 * 64, diameter_px=5.0)  # four times larger when it is shown
    weights = image_weights([small, one_crop, sixteen, huge, magnified], crop_px=64, diameter_px=20.0)
    np.testing.assert_allclose(weights / weights[0], [1, 1, 2, 2, 2])


def test_a_drawing_depends_on_seed_and_epoch_alone() -> None:
    weights = np.linspace(0.1, 1, 34)
    draws = {
        (seed, epoch): draw_epoch(weights, n_crops=100, seed=seed, epoch=epoch).tobytes()
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(set(draws.values())) == 4
    assert all(draw_epoch(weights, n_crops=100, seed=s, epoch=e).tobytes() == draw for (s, e), draw in draws.items())


def test_a_drawing_is_shuffled() -> None:
    drawn = draw_epoch(np.ones(50), n_crops=100, seed=3, epoch=0)
    assert (np.diff(drawn) < 0).sum() > 20


@dataclass(frozen=True)
class Truth:
    """What the prepared images must be, sorted by id."""

    images: tuple[PreparedImage, ...]
    subjects: tuple[Subject, ...]


def rows() -> list[dict[str, Any]]:
    """Make rows as ``read_samples`` gives them: five images of two kinds and shapes, one of them unreadable."""
    made = []
    for number, shape in enumerate([(80, 100), (48, 60), (96, 96), (70, 130), (64, 64)]):
        image, labels = render_site(
            SiteLook(shape_px=shape, nuclei=5, radius_px=(5.0, 9.0)), np.random.default_rng(number)
        )
        # Not in the order of their ids: the stream must not care in which block an image lies.
        name, kind = f"image {4 - number}", "rare" if number == 1 else "common"
        made.append(
            {"image_id": name, "kind": kind, "overlap_px": number, "n_empty": 1, "error": None}
            | {"arrays": (image, labels)}
        )
    made.append(
        {
            "image_id": "broken",
            "kind": "common",
            "overlap_px": 0,
            "n_empty": 0,
            "error": "broken.png: cut short",
            "arrays": (None, None),
        }
    )
    return made


@pytest.fixture(scope="module")
def truth() -> Truth:
    good = sorted((row for row in rows() if row["error"] is None), key=lambda row: row["image_id"])
    images, subjects = [], []
    for row in good:
        image, labels = row["arrays"]
        nuclei = nuclei_of(labels)
        diameter = typical_diameter(nuclei[:, 2])
        assert diameter is not None
        images.append(PreparedImage(row["image_id"], row["kind"], 0, 0, diameter, labels.size))
        pixels = as_rgb(np.rint(Percentile().normalise(image) * 255).astype(np.uint8))
        subjects.append(Subject(pixels, labels.astype(np.uint16), nuclei, diameter))
    return Truth(tuple(images), tuple(subjects))


@pytest.fixture(scope="module")
def prepared(ray_session: None) -> Prepared:
    import ray.data

    table = to_table(
        [{**row, **pack("image", row["arrays"][0]), **pack("labels", row["arrays"][1])} for row in rows()],
        SAMPLE_SCHEMA,
    )
    samples = ray.data.from_arrow([table.slice(0, 2), table.slice(2, 3), table.slice(5)])
    return prepare(samples, normalisation=Percentile())


def stream(prepared: Prepared, share: Share, *, first_step: int, steps: int) -> list[tuple[np.ndarray, np.ndarray]]:
    import ray

    return list(crop_batches(ray.put(prepared), PLAN, share, first_step=first_step, steps=steps))


def plain_loop(truth: Truth, *, epochs: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw every crop of the epochs one after the other, without Ray."""
    images, targets = [], []
    weights = image_weights(truth.images, crop_px=PLAN.crop_px, diameter_px=PLAN.diameter_px)
    for epoch in range(epochs):
        drawn = draw_epoch(weights, n_crops=PLAN.crops_per_epoch, seed=PLAN.seed, epoch=epoch)
        for slot, number in enumerate(drawn):
            crop = random_crop(
                truth.subjects[number],
                crop_px=PLAN.crop_px,
                diameter_px=PLAN.diameter_px,
                augmentation=PLAN.augmentation,
                rng=np.random.default_rng([PLAN.seed, epoch, slot]),
            )
            images.append(crop.pixels)
            targets.append(training_targets(crop, PLAN.labels))
    return np.stack(images), np.stack(targets)


def test_preparing_sorts_counts_and_keeps_errors(prepared: Prepared, truth: Truth) -> None:
    assert [replace(image, block=0, row=0) for image in prepared.images] == list(truth.images)
    assert Counter(image.kind for image in prepared.images) == {"common": 4, "rare": 1}
    assert (prepared.overlap_px, prepared.n_empty) == (10, 5)
    assert prepared.errors == ("broken.png: cut short",)


def test_the_stream_equals_a_plain_loop(prepared: Prepared, truth: Truth) -> None:
    # Batches of 16 cross the ends of epochs of 40.
    batches = stream(prepared, Share(size=16, rank=0, workers=1), first_step=0, steps=7)
    assert [images.shape for images, _ in batches] == [(16, 64, 64, 3)] * 7
    assert [targets.shape for _, targets in batches] == [(16, 64, 64, 5)] * 7
    for taken, expected in zip(zip(*batches, strict=True), plain_loop(truth, epochs=3), strict=True):
        joined = np.concatenate(taken)
        assert joined.dtype == np.uint8
        np.testing.assert_array_equal(joined, expected[: 7 * 16])


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_neither_restarts_nor_workers_change_it(prepared: Prepared, truth: Truth, workers: int) -> None:
    # A run that goes on at step 5 takes what the whole run took there, and the workers' shares make up the batch.
    shares = [Share(size=16 // workers, rank=rank, workers=workers) for rank in range(workers)]
    streams = [stream(prepared, share, first_step=5, steps=7) for share in shares]
    expected = plain_loop(truth, epochs=3)
    for number in range(2):
        for part in (0, 1):
            joined = np.concatenate([each[number][part] for each in streams])
            np.testing.assert_array_equal(joined, expected[part][(5 + number) * 16 : (6 + number) * 16])
    assert [len(each) for each in streams] == [2] * workers


def test_a_stream_that_is_over_gives_nothing(prepared: Prepared) -> None:
    assert stream(prepared, Share(size=4, rank=0, workers=1), first_step=3, steps=3) == []


@given(size=st.integers(1, 9), workers=st.integers(1, 5), steps=st.integers(1, 6))
def test_shares_hold_every_crop_once_in_order(size: int, workers: int, steps: int) -> None:
    shares = [Share(size=size, rank=rank, workers=workers) for rank in range(workers)]
    numbers = [number for step in range(steps) for share in shares for number in share.crops(step)]
    assert numbers == list(range(size * workers * steps))


def test_validation_crops_are_the_centres(prepared: Prepared, truth: Truth) -> None:
    numbers = [3, 0, 4]
    crops = validation_crops(prepared, crop_px=64, diameter_px=25.0, numbers=numbers)
    for crop, number in zip(crops, numbers, strict=True):
        expected = centre_crop(truth.subjects[number], crop_px=64, diameter_px=25.0)
        for field in fields(crop):
            np.testing.assert_array_equal(getattr(crop, field.name), getattr(expected, field.name))


def test_an_image_without_nuclei_is_taken_to_be_like_the_others(ray_session: None) -> None:
    import ray.data

    labels = [np.zeros((20, 20), np.int32) for _ in range(3)]
    labels[0][:10, :10] = 1
    columns = {"kind": "a", "overlap_px": 0, "n_empty": 0, "error": None}
    table = to_table(
        [
            {"image_id": str(n), **columns, **pack("image", each.astype(np.uint8)), **pack("labels", each)}
            for n, each in enumerate(labels)
        ],
        SAMPLE_SCHEMA,
    )
    prepared = prepare(ray.data.from_arrow(table), normalisation=Percentile())
    assert [image.diameter_px for image in prepared.images] == [pytest.approx(2 * np.sqrt(100 / np.pi))] * 3
