"""What a peer is given: the same images and labels as the project, a fair share held out, pairs that stay pairs."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from nucseg_ray.imaging.codecs import as_rgb, decode_image, decode_label_png, decode_mask
from nucseg_ray.imaging.masks import join_masks

INDEX = "ImageId,modality,topcoders_fold,mosaic_idx\n"


@pytest.fixture(scope="module")
def bowl(script):
    return script("peers/bowl.py")


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((5, 7), np.uint8), ((5, 7), np.uint16), ((5, 7, 3), np.uint8), ((5, 7, 4), np.uint8), ((5, 7, 4), np.uint16)],
)
def test_images_are_read_as_the_project_reads_them(bowl, tmp_path, shape, dtype):
    stored = np.random.default_rng(1).integers(0, np.iinfo(dtype).max, shape, dtype)
    cv2.imwrite(str(tmp_path / "a.png"), stored)
    image = bowl.read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(image, as_rgb(decode_image((tmp_path / "a.png").read_bytes(), name="a")))
    assert image.dtype == dtype
    if len(shape) == 3:
        np.testing.assert_array_equal(image[..., 0], stored[..., 2])  # OpenCV writes blue first


def test_labels_are_joined_as_the_project_joins_them(bowl, tmp_path):
    rng = np.random.default_rng(2)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), rng.integers(0, 255, (9, 9), np.uint8))
    for name in ("b", "a", "c"):  # they overlap
        cv2.imwrite(
            str(tmp_path / "masks" / f"{name}.png"), np.where(rng.random((9, 9)) < 0.4, 255, 0).astype(np.uint8)
        )
    masks = [decode_mask((tmp_path / "masks" / f"{name}.png").read_bytes(), name=name) for name in "abc"]
    _, labels = bowl.read_sample(tmp_path)
    np.testing.assert_array_equal(labels, join_masks(masks, shape=(9, 9)).labels)
    assert set(np.unique(labels)) == {0, 1, 2, 3}


def test_whole_groups_of_every_kind_are_held_out(bowl):
    counts = {"many": 100, "few": 4, "one": 1}
    rows = [
        {"ImageId": f"{kind}{group}{n}", "modality": kind, "topcoders_fold": "1", "mosaic_idx": f"{kind}{group}"}
        for kind, groups in counts.items()
        for group in range(groups)
        for n in range(3)
    ]
    train, held = bowl.hold_out(rows, share=0.15, seed=0)
    assert {row["mosaic_idx"] for row in train}.isdisjoint(row["mosaic_idx"] for row in held)
    assert sorted(row["ImageId"] for row in (*train, *held)) == sorted(row["ImageId"] for row in rows)
    found = {kind: sum(row["modality"] == kind for row in held) for kind in counts}
    assert found == {"many": 45, "few": 3, "one": 0}
    assert bowl.hold_out(rows, share=0.15, seed=0) == (train, held)
    assert bowl.hold_out(rows, share=0.15, seed=1) != (train, held)


def test_nothing_of_the_fold_is_learned_from(bowl, tmp_path):
    index = tmp_path / "index.csv"
    index.write_text(INDEX + "a,x,0,1\nb,x,1,2\nc,x,2,3\n")
    assert [row["ImageId"] for row in bowl.read_index(index, fold=1)] == ["a", "c"]
    with pytest.raises(SystemExit, match=r"--fold 7: .* found \[0, 1, 2\]"):
        bowl.read_index(index, fold=7)


def test_augmentation_moves_image_and_labels_alike(bowl):
    labels = np.random.default_rng(3).integers(0, 50, (6, 6))
    augment = bowl.augmenter(np.random.default_rng(4))
    ways = set()
    for _ in range(100):
        image, moved = augment(np.repeat(labels[..., np.newaxis], 3, axis=2).astype(float), labels)
        gain, offset = np.polyfit(moved.ravel(), image[..., 1].ravel(), 1)
        np.testing.assert_allclose(image, (gain * moved + offset)[..., np.newaxis].repeat(3, axis=2), atol=0.1)
        assert 0.59 < gain < 2.01 and -0.25 < offset < 0.25
        ways.add(moved.tobytes())
    assert len(ways) == 8


def test_labels_are_written_as_an_evaluation_reads_them(bowl, tmp_path):
    labels = np.array([[0, 1], [65_535, 300]])
    bowl.write_labels(tmp_path / "a.png", labels)
    np.testing.assert_array_equal(decode_label_png((tmp_path / "a.png").read_bytes(), name="a"), labels)
    with pytest.raises(SystemExit, match="65536 nuclei"):
        bowl.write_labels(tmp_path / "b.png", labels + 1)


def test_a_folder_must_tell_which_image_a_label_image_is_of(bowl, tmp_path):
    for name in ("b.png", "a.TIF", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in bowl.list_images(tmp_path)] == ["a.TIF", "b.png"]
    (tmp_path / "a.png").touch()
    with pytest.raises(SystemExit, match="such as a"):
        bowl.list_images(tmp_path)
