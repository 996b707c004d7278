"""What the transforms of the robustness table do, pixel by pixel, and what the sets they make are read as."""

from __future__ import annotations

import json
import math

import cv2
import numpy as np
import pytest

from nucseg_ray.imaging.codecs import decode_image, decode_label_png, decode_mask
from nucseg_ray.imaging.masks import labels_from_mask
from nucseg_ray.storage.locations import Location
from nucseg_ray.storage.training_sets import find_training_set


@pytest.fixture(scope="module")
def sets(script):
    return script("transformed_sets.py")


@pytest.fixture(scope="module")
def transform(sets):
    """Apply a transform by its name, with a generator that tests agree on."""
    by_name = {t.name: t for t in sets.TRANSFORMS}

    def apply(name, image, labels=None, *, seed=0):
        labels = np.zeros(image.shape[:2], np.int32) if labels is None else labels
        return by_name[name].apply(image, labels, sets.random_for("a", seed=seed))

    return apply


def test_the_table_has_its_eight_sets(sets):
    assert [t.name for t in sets.TRANSFORMS] == [
        "plain", "scale-0.5", "scale-2", "scale-3", "gamma-0.5", "gamma-2", "noise", "blur",
    ]  # fmt: skip


def test_halved_images_are_means_of_four_pixels(transform):
    image = np.array([[0, 4, 100, 100], [8, 8, 104, 100]], np.uint8)
    halved, _ = transform("scale-0.5", image)
    np.testing.assert_array_equal(halved, [[5, 101]])
    assert halved.dtype == np.uint8


def test_halved_labels_are_of_every_second_pixel_and_consecutive(transform):
    labels = np.array([[1, 0, 0, 0, 5, 5], [0, 0, 0, 3, 5, 5], [9, 9, 0, 0, 0, 0], [9, 9, 0, 0, 0, 0]], np.int32)
    image = np.zeros((4, 6), np.uint8)
    _, halved = transform("scale-0.5", image, labels)  # 1 lies under no centre; 3, 5 and 9 do
    np.testing.assert_array_equal(halved, [[0, 1, 2], [3, 0, 0]])
    assert halved.dtype == np.int32


@pytest.mark.parametrize("factor", [2, 3])
def test_enlarged_labels_are_repeated_pixels(transform, factor):
    labels = np.arange(6, dtype=np.int32).reshape(2, 3)
    image, enlarged = transform(f"scale-{factor}", np.full((2, 3, 3), 77, np.uint8), labels)
    np.testing.assert_array_equal(enlarged, np.repeat(np.repeat(labels, factor, axis=0), factor, axis=1))
    np.testing.assert_array_equal(image, np.full((2 * factor, 3 * factor, 3), 77))


def test_enlarged_images_are_bilinear_about_the_centres_of_pixels(transform):
    doubled, _ = transform("scale-2", np.array([[0, 100]], np.uint8))
    np.testing.assert_array_equal(doubled, [[0, 25, 75, 100]] * 2)


def test_odd_sides_are_rounded_for_image_and_labels_alike(transform):
    image, labels = transform("scale-0.5", np.zeros((603, 5), np.uint8), np.full((603, 5), 4, np.int32))
    assert image.shape == labels.shape == (302, 3)
    assert (labels == 1).all()


@pytest.mark.parametrize(
    ("name", "dtype", "expected"),
    [
        ("gamma-0.5", np.uint8, [0, 16, 128, 255]),  # 255 sqrt(1/255) = 15.97, 255 sqrt(64/255) = 127.7
        ("gamma-2", np.uint8, [0, 0, 16, 255]),  # 64²/255 = 16.06
        ("gamma-2", np.uint16, [0, 0, 0, 1]),  # 255²/65535 = 0.99
    ],
)
def test_gamma_is_of_the_full_range_of_the_pixel_type(transform, name, dtype, expected):
    changed, _ = transform(name, np.array([[0, 1, 64, 255]], dtype))
    np.testing.assert_array_equal(changed, [expected])
    assert changed.dtype == dtype


def test_noise_has_a_twentieth_of_the_range_and_is_its_own_in_each_channel(transform):
    image = np.full((400, 400, 3), 100, np.uint8)
    image[:, :200] = 160
    noisy, _ = transform("noise", image)
    added = noisy.astype(float) - image
    # Sigma 3 and the rounding to whole values; 160,000 draws a channel tell it to 1 %.
    np.testing.assert_allclose(added.std(axis=(0, 1)), math.sqrt(3**2 + 1 / 12), rtol=0.01)
    np.testing.assert_allclose(added.mean(axis=(0, 1)), 0, atol=0.03)
    assert abs(np.corrcoef(added.reshape(-1, 3).T)[np.triu_indices(3, 1)]).max() < 0.01


def test_noise_is_clipped_and_never_wraps(transform):
    image = np.zeros((200, 200), np.uint8)
    image[:, 100:] = 255
    noisy, _ = transform("noise", image)
    assert noisy[:, :100].max() < 70
    assert noisy[:, 100:].min() > 185
    assert (noisy[:, :100] == 0).mean() > 0.5  # the half that would have been negative


def test_noise_depends_on_seed_and_image_alone(transform, sets):
    image = np.full((8, 8), 100, np.uint8)
    image[0] = 200
    first, _ = transform("noise", image)
    np.testing.assert_array_equal(transform("noise", image)[0], first)
    assert (transform("noise", image, seed=1)[0] != first).any()
    other, _ = sets.add_noise(image, np.zeros((8, 8), np.int32), sets.random_for("b", seed=0))
    assert (other != first).any()


def test_blur_spreads_a_point_as_a_gaussian_of_one_and_a_half_pixels(transform):
    image = np.zeros((31, 31), np.uint16)
    image[15, 15] = 60_000
    y, x = np.mgrid[-15:16, -15:16]
    bell = np.exp(-(x**2 + y**2) / (2 * 1.5**2))
    bell[np.maximum(abs(x), abs(y)) > 6] = 0
    blurred, _ = transform("blur", image)
    np.testing.assert_array_equal(blurred, np.rint(60_000 * bell / bell.sum()))


@pytest.mark.parametrize("name", ["gamma-0.5", "gamma-2", "noise", "blur", "plain"])
def test_what_changes_intensities_leaves_the_labels(transform, name):
    labels = np.array([[0, 2], [7, 7]], np.int32)
    _, same = transform(name, np.array([[3, 2], [1, 0]], np.uint8), labels)
    np.testing.assert_array_equal(same, labels)


@pytest.mark.parametrize(
    "labels",
    [
        [[1, 0, 1]],  # in two pieces: a mask of 0 and 1 would become two nuclei
        [[1, 1, 1]],
        [[0, 0, 0]],
        [[1, 0, 2]],
    ],
)
def test_masks_are_read_the_same_as_truth_and_as_a_labelled_image(sets, labels):
    png = sets.mask_png(np.array(labels, np.int32))
    np.testing.assert_array_equal(labels_from_mask(decode_mask(png, name="a")), labels)
    as_truth = decode_label_png(png, name="a")
    assert len(np.unique(as_truth[as_truth > 0])) == np.max(labels)


@pytest.fixture(scope="module")
def written(sets, tmp_path_factory):
    """Sets of two images of fold 0, one grey (with an alpha channel) and one in colour; a third is in fold 1."""
    root = tmp_path_factory.mktemp("bowl")
    rng = np.random.default_rng(5)
    images = {"b": rng.integers(0, 256, (16, 20, 3), np.uint8), "c": rng.integers(0, 256, (16, 16, 3), np.uint8)}
    images["a"] = np.repeat(rng.integers(0, 256, (12, 14, 1), np.uint8), 3, axis=2)
    for name, image in images.items():
        for folder in ("images", "masks"):
            (root / name / folder).mkdir(parents=True)
        cv2.imwrite(str(root / name / "images" / f"{name}.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGRA))
        for number, corner in enumerate(((0, 0), (6, 7)), start=1):
            mask = np.zeros(image.shape[:2], np.uint8)
            mask[corner[0] : corner[0] + 5, corner[1] : corner[1] + 6] = 255
            cv2.imwrite(str(root / name / "masks" / f"{number}.png"), mask)
    index = root.parent / f"{root.name}.csv"
    index.write_text("ImageId,modality,topcoders_fold,mosaic_idx\na,dark,0,4\nb,colour,0,4\nc,colour,1,5\n")
    found = find_training_set(Location(str(root)), index=Location(str(index)))
    fold = found.only(sample for sample in found.samples if sample.fold == 0)
    for name in ("sets", "again"):
        sets.write_sets(fold, root.parent / name, seed=3)
    return root.parent / "sets"


def test_a_manifest_brings_kind_group_and_fold_along(written):
    for manifest in sorted(written.glob("*/manifest.csv")):
        samples = find_training_set(Location(str(manifest))).samples
        assert [(s.image_id, s.kind, s.group, s.fold) for s in samples] == [
            ("a", "dark", "4", 0),
            ("b", "colour", "4", 0),
        ]
        assert [(s.image, s.masks) for s in samples] == [(f"images/{i}.png", (f"masks/{i}.png",)) for i in "ab"]
        in_folder = find_training_set(Location(str(manifest.parent)))
        assert [s.image_id for s in in_folder.samples] == ["a", "b"]
    assert len(list(written.glob("*/manifest.csv"))) == 8


def test_the_plain_set_is_the_fold_as_an_evaluation_reads_it(written):
    image = decode_image((written / "plain/images/b.png").read_bytes(), name="b")
    np.testing.assert_array_equal(image, np.random.default_rng(5).integers(0, 256, (16, 20, 3), np.uint8))
    assert decode_image((written / "plain/images/a.png").read_bytes(), name="a").shape == (12, 14)
    truth = np.zeros((16, 20), int)
    truth[:5, :6], truth[6:11, 7:13] = 1, 2
    np.testing.assert_array_equal(decode_label_png((written / "plain/masks/b.png").read_bytes(), name="b"), truth)


def test_the_account_counts_each_kind_of_each_set(written):
    about = json.loads((written / "sets.json").read_text())
    assert about["seed"] == 3
    assert len(about["sets"]) == 8
    for one in about["sets"].values():
        assert one["kinds"] == {kind: {"images": 1, "nuclei": 2, "vanished": 0} for kind in ("dark", "colour")}


def test_the_same_seed_writes_the_same_bytes(written):
    files = sorted(path.relative_to(written) for path in written.rglob("*") if path.is_file())
    assert len(files) == 8 * 5 + 1
    for path in files:
        assert (written / path).read_bytes() == (written.parent / "again" / path).read_bytes(), path
