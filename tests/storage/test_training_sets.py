"""Labelled images on disk: layouts and indexes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from nucseg_ray.errors import InputError, MissingInputError
from nucseg_ray.storage.locations import Location
from nucseg_ray.storage.training_sets import Sample, TrainingSet, find_training_set

BOWL = ("b/images/b.png", "b/masks/2.png", "b/masks/1.png", "a/images/a.png", "a/masks/9.png")
PAIRED = ("images/x.tif", "masks/x.png", "images/a.b.png", "masks/a.b.tif")


def find(root: Path, *paths: str, index: str | bytes | None = None) -> TrainingSet:
    """Make files (nothing reads them) and look at them."""
    for path in paths:
        (root / "set" / path).parent.mkdir(parents=True, exist_ok=True)
        (root / "set" / path).touch()
    if index is None:
        return find_training_set(Location(str(root / "set")))
    (root / "index.csv").write_bytes(index.encode() if isinstance(index, str) else index)
    return find_training_set(Location(str(root / "set")), index=Location(str(root / "index.csv")))


def test_one_file_a_nucleus(tmp_path: Path) -> None:
    found = find(tmp_path, *BOWL, "a/notes.txt", "a/masks/notes.txt", "README.md")
    assert found.layout == "<id>/images + <id>/masks, one file a nucleus"
    assert found.root == Location(str(tmp_path / "set"))
    assert found.samples == (
        Sample("a", "a/images/a.png", ("a/masks/9.png",), one_mask=False, group="a", kind="image", fold=None),
        Sample("b", "b/images/b.png", ("b/masks/1.png", "b/masks/2.png"), one_mask=False, group="b"),
    )


def test_an_image_without_masks_has_no_nuclei(tmp_path: Path) -> None:
    found = find(tmp_path, *BOWL, "c/images/c.png")
    assert found.samples[2] == Sample("c", "c/images/c.png", (), one_mask=False, group="c")


@pytest.mark.parametrize("folder", ["images", "inputs"])
def test_one_file_an_image(tmp_path: Path, folder: str) -> None:
    found = find(tmp_path, *(path.replace("images", folder) for path in PAIRED))
    assert found.layout == "images + masks, one file an image"
    assert found.samples == (
        Sample("a.b", f"{folder}/a.b.png", ("masks/a.b.tif",), one_mask=True, group="a.b"),
        Sample("x", f"{folder}/x.tif", ("masks/x.png",), one_mask=True, group="x"),
    )


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        pytest.param((*BOWL, *PAIRED), "both <id>/masks folders.*such as a", id="both layouts"),
        pytest.param((*PAIRED, "masks/lonely.png"), "1 files lack their partner.*lonely", id="mask without image"),
        pytest.param((*PAIRED, "images/u.png", "images/v.png"), "2 files lack.*u, v", id="images without mask"),
        pytest.param((*BOWL, "lost/masks/1.png"), "1 folders have masks and no image.*lost", id="masks without image"),
        pytest.param(
            (*BOWL, "a/images/z.png"), "a: expected one image, found a/images/a.png and a/images/z.png", id="two"
        ),
        pytest.param((*PAIRED, "images/x.png"), "images/x.png and images/x.tif.*same stem", id="same stem"),
        pytest.param((*PAIRED, "inputs/x.png"), "images/x.tif and inputs/x.png.*same stem", id="same in inputs"),
        pytest.param(
            ("p/q.png", "r.png"), r"found 2 image files in neither layout \(such as p/q.png, r.png\)", id="other"
        ),
        pytest.param(("images/a.png",), "found 1 image files in neither", id="images alone"),
        pytest.param(("a/images/a.png",), "found 1 image files in neither", id="image folders alone"),
        pytest.param(("a.txt",), "found 0 image files in neither layout$", id="no image"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, paths: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        find(tmp_path, *paths)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="nowhere"):
        find_training_set(Location(str(tmp_path / "nowhere")))


@pytest.mark.parametrize("names", ["ImageId,modality,mosaic_idx,topcoders_fold", "image_id,kind,group,fold"])
def test_an_index_adds_kind_group_and_fold(tmp_path: Path, names: str) -> None:
    index = f"\ufeff{names}\r\nb,tissue,7,3\r\nother,x,1,0\r\na,,,\r\n"
    first, second = find(tmp_path, *BOWL, index=index).samples
    assert (first.image_id, first.kind, first.group, first.fold) == ("a", "image", "a", None)
    assert (second.image_id, second.kind, second.group, second.fold) == ("b", "tissue", "7", 3)
    assert second.masks == ("b/masks/1.png", "b/masks/2.png")


def test_an_index_may_hold_any_of_its_columns(tmp_path: Path) -> None:
    samples = find(tmp_path, *PAIRED, index="fold,image\n2,x\n0,a.b\n").samples
    assert [(sample.image_id, sample.kind, sample.group, sample.fold) for sample in samples] == [
        ("a.b", "image", "a.b", 0),
        ("x", "image", "x", 2),
    ]


@pytest.mark.parametrize(
    ("index", "message"),
    [
        pytest.param("ImageId,fold\nb,1\n", r"1 of 2 images have no row in it \(such as a\)", id="missing row"),
        pytest.param("ImageId,fold\n", r"2 of 2 images have no row in it \(such as a, b\)", id="no rows"),
        pytest.param(
            "ImageId,fold\na,1\nb,first\n", "image b: expected a number in fold, found 'first'", id="bad fold"
        ),
        pytest.param(
            "name,fold\na,1\n", "expected a column ImageId or image_id or image, found name, fold", id="no id"
        ),
        pytest.param("ImageId,fold\na,1\nb,1\nb,2\n", "'b' has several rows; expected one", id="an image twice"),
        pytest.param("", "expected a column ImageId.*found none", id="empty"),
        pytest.param(b"ImageId\n\xff\xfe\n", "expected a CSV in UTF-8", id="not UTF-8"),
    ],
)
def test_an_index_that_does_not_fit_is_refused(tmp_path: Path, index: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=rf"index\.csv(, line 3)?: .*{message}"):
        find(tmp_path, *BOWL, index=index)


def test_the_data_science_bowl(realdata: Path) -> None:
    bowl = Location(str(realdata / "dsb2018"))
    found = find_training_set(bowl / "stage1_train", index=bowl / "stage1_train_index.csv")
    assert found.layout.startswith("<id>/images")
    assert len(found.samples) == 664
    assert sorted(Counter(sample.kind for sample in found.samples).values()) == [16, 107, 541]
    assert sum(len(sample.masks) for sample in found.samples) == 28_986
    assert {sample.fold for sample in found.samples} == {0, 1, 2, 3}
    folds_of = {
        sample.group: {other.fold for other in found.samples if other.group == sample.group} for sample in found.samples
    }
    assert max(len(folds) for folds in folds_of.values()) == 1
