"""The stream of training crops, against a plain loop."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucseg_ray.imaging.augment import Augmentation, centre_crop, crop
from nucseg_ray.imaging.codecs import as_rgb
from nucseg_ray.imaging.labels import CentreLabels
from nucseg_ray.imaging.normalise import Percentile
from nucseg_ray.imaging.synthetic import SiteLook, render_site
from nucseg_ray.pipelines.crops import CropPlan, Prepared, Share, crop_batches, draw_epoch, prepare, validation_crops
from nucseg_ray.pipelines.rows import pack, to_table
from nucseg_ray.pipelines.samples import SAMPLE_SCHEMA

PLAN = CropPlan(crops_per_epoch=40, crop_px=64, seed=11, augmentation=Augmentation())


@given(
    counts=st.lists(st.integers(1, 60), min_size=1, max_size=5),
    n_crops=st.integers(1, 500),
    seed=st.integers(0, 2**31),
    epoch=st.integers(0, 500),
)
@settings(max_examples=100, deadline=None)
def test_a_kind_weighs_as_the_root_of_its_number(counts: list[int], n_crops: int, seed: int, epoch: int) -> None:
    kinds = [f"kind {number}" for number, count in enumerate(counts) for _ in range(count)]
    np.random.default_rng(seed).shuffle(kinds)
    drawn = draw_epoch(kinds, n_crops=n_crops, seed=seed, epoch=epoch)
    assert drawn.shape == (n_crops,) and drawn.min() >= 0 and drawn.max() < len(kinds)
    share = np.sqrt(counts) / np.sqrt(counts).sum()
    times = np.bincount(drawn, minlength=len(kinds))
    for image, kind in enumerate(kinds):
        number = int(kind.removeprefix("kind "))
        assert abs(times[image] - n_crops * share[number] / counts[number]) < 1 + 1e-6


def test_a_drawing_depends_on_seed_and_epoch_alone() -> None:
    kinds = ["a"] * 30 + ["b"] * 4
    draws = {
        (seed, epoch): draw_epoch(kinds, n_crops=100, seed=seed, epoch=epoch).tobytes()
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(set(draws.values())) == 4
    assert all(draw_epoch(kinds, n_crops=100, seed=s, epoch=e).tobytes() == draw for (s, e), draw in draws.items())


def test_a_drawing_is_shuffled() -> None:
    drawn = draw_epoch(["a"] * 50, n_crops=100, seed=3, epoch=0)
    assert (np.diff(drawn) < 0).sum() > 20


@dataclass(frozen=True)
class Truth:
    """What the prepared images must be, by id; ``ids`` are sorted."""

    ids: tuple[str, ...]
    kinds: tuple[str, ...]
    arrays: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]


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
    arrays = {}
    for row in good:
        image, labels = row["arrays"]
        normalised = as_rgb(np.rint(Percentile().normalise(image) * 255).astype(np.uint8))
        arrays[row["image_id"]] = (normalised, CentreLabels().targets(labels), labels)
    return Truth(tuple(row["image_id"] for row in good), tuple(row["kind"] for row in good), arrays)


@pytest.fixture(scope="module")
def prepared(ray_session: None) -> Prepared:
    import ray.data

    table = to_table(
        [{**row, **pack("image", row["arrays"][0]), **pack("labels", row["arrays"][1])} for row in rows()],
        SAMPLE_SCHEMA,
    )
    samples = ray.data.from_arrow([table.slice(0, 2), table.slice(2, 3), table.slice(5)])
    return prepare(samples, normalisation=Percentile(), labels=CentreLabels())


def stream(prepared: Prepared, share: Share, *, first_step: int, steps: int) -> list[tuple[np.ndarray, np.ndarray]]:
    import ray

    return list(crop_batches(ray.put(prepared), PLAN, share, first_step=first_step, steps=steps))


def plain_loop(truth: Truth, *, epochs: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw every crop of the epochs one after the other, without Ray."""
    images, targets = [], []
    for epoch in range(epochs):
        drawn = draw_epoch(truth.kinds, n_crops=PLAN.crops_per_epoch, seed=PLAN.seed, epoch=epoch)
        for slot, number in enumerate(drawn):
            image, maps, _ = truth.arrays[truth.ids[number]]
            rng = np.random.default_rng([PLAN.seed, epoch, slot])
            cut = crop(image, maps, crop_px=PLAN.crop_px, augmentation=PLAN.augmentation, rng=rng)
            images.append(cut[0])
            targets.append(cut[1])
    return np.stack(images), np.stack(targets)


def test_preparing_sorts_counts_and_keeps_errors(prepared: Prepared, truth: Truth) -> None:
    assert tuple(image_id for image_id, *_ in prepared.rows) == truth.ids
    assert Counter(kind for _, kind, *_ in prepared.rows) == {"common": 4, "rare": 1}
    assert (prepared.overlap_px, prepared.n_empty) == (10, 5)
    assert prepared.errors == ("broken.png: cut short",)


def test_the_stream_equals_a_plain_loop(prepared: Prepared, truth: Truth) -> None:
    # Batches of 16 cross the ends of epochs of 40.
    batches = stream(prepared, Share(size=16, rank=0, workers=1), first_step=0, steps=7)
    assert [images.shape for images, _ in batches] == [(16, 64, 64, 3)] * 7
    assert [targets.shape for _, targets in batches] == [(16, 64, 64, 2)] * 7
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
    planes = validation_crops(prepared, crop_px=64, numbers=numbers)
    assert [plane.dtype for plane in planes] == [np.uint8, np.uint8, np.int32]
    for row, number in enumerate(numbers):
        expected = centre_crop(*truth.arrays[truth.ids[number]], crop_px=64)
        for taken, plane in zip(planes, expected, strict=True):
            np.testing.assert_array_equal(taken[row], plane)
