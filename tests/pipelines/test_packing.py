"""Packing a training set: the same samples as before, and nothing that is half a set."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from nucseg_ray.config import PackSettings
from nucseg_ray.errors import InputError, OutputError, OutputMismatchError
from nucseg_ray.imaging.augment import Augmentation
from nucseg_ray.imaging.labels import CentreLabels
from nucseg_ray.imaging.normalise import Percentile
from nucseg_ray.pipelines.crops import CropPlan, Prepared, prepare, render
from nucseg_ray.pipelines.packing import run_pack
from nucseg_ray.pipelines.rows import unpack
from nucseg_ray.pipelines.samples import SAMPLE_SCHEMA, read_samples
from nucseg_ray.storage.listing import find_files
from nucseg_ray.storage.locations import Location
from nucseg_ray.storage.training_sets import TrainingSet, find_training_set

SHAPES: dict[str, tuple[int, ...]] = {
    "colour": (70, 90, 3),
    "deep": (64, 64),
    "empty": (81, 66),
    "grey": (100, 64),
    "odd": (65, 130),
    "other": (96, 96, 3),
    "without": (72, 72),
}


@pytest.fixture(scope="module")
def bowl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of every kind, in folders with one file a nucleus, and ``index.csv`` beside them."""
    folder = tmp_path_factory.mktemp("bowl")
    rng = np.random.default_rng(5)
    lines = ["ImageId,modality,mosaic_idx,topcoders_fold"]
    for number, (name, shape) in enumerate(SHAPES.items()):
        for below in ("images", "masks"):
            (folder / "set" / name / below).mkdir(parents=True)
        dtype = np.uint16 if name == "deep" else np.uint8
        cv2.imwrite(str(folder / "set" / name / "images" / f"{name}.png"), rng.integers(0, 250, shape).astype(dtype))
        for nucleus in range({"without": 0, "empty": 1}.get(name, 4)):
            mask = np.zeros(shape[:2], np.uint8)
            if name != "empty":
                y, x = rng.integers(0, 45, 2)
                mask[y : y + 20, x : x + 20] = 255  # some overlap
            cv2.imwrite(str(folder / "set" / name / "masks" / f"{nucleus}.png"), mask)
        lines.append(f"{name},{'dyed' if len(shape) == 3 else 'dark'},{number // 2},{number // 2 % 3}")
    (folder / "index.csv").write_text("\n".join(lines))
    return folder


def find(bowl: Path) -> TrainingSet:
    return find_training_set(Location(str(bowl / "set")), index=Location(str(bowl / "index.csv")))


def pack(bowl: Path, output: Any, **settings: Any) -> str:
    return run_pack(PackSettings(data=str(bowl / "set"), index=str(bowl / "index.csv"), output=str(output), **settings))


def read(training_set: TrainingSet) -> dict[str, dict[str, Any]]:
    """Read through Ray: every value of every row, by image id."""
    return {
        row["image_id"]: row
        for table in ray.get(read_samples(training_set).to_arrow_refs())
        for row in table.select(SAMPLE_SCHEMA.names).to_pylist()
    }


def described(training_set: TrainingSet) -> list[tuple[Any, ...]]:
    return [(each.image_id, each.group, each.kind, each.fold) for each in training_set.samples]


def some_crops(training_set: TrainingSet) -> tuple[Prepared, tuple[Any, ...]]:
    prepared = prepare(read_samples(training_set), normalisation=Percentile())
    plan = CropPlan(
        crops_per_epoch=12, crop_px=64, diameter_px=20.0, labels=CentreLabels(), seed=3, augmentation=Augmentation()
    )
    return prepared, render(prepared, plan, range(12, 24))


@pytest.mark.parametrize("place", ["local", "s3"])
def test_the_packed_set_is_the_same_set(
    bowl: Path, tmp_path: Path, bucket: str, ray_session: None, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    output = Location(bucket) / "sets/packed" if place == "s3" else Location(str(tmp_path / "packed"))
    told = pack(bowl, output, images_per_part=3)
    assert told.startswith("7 images packed into 3 parts, 0.") and f" MB, in {output} (" in told
    names = ["packed.json", *(f"part-0000{number}.parquet" for number in range(3))]
    assert [name for name, _ in find_files(output)] == names
    assert "1 masks were empty" in caplog.text

    folder, packed = find(bowl), find_training_set(output)
    assert packed.layout == f"packed, 3 parts, from {folder.root} ({folder.layout})"
    assert described(packed) == described(folder)
    expected = read(folder)
    assert read(packed) == expected
    assert sum(row["overlap_px"] for row in expected.values()) > 0
    assert {len(row["image_shape"]) for row in expected.values()} == {2, 3}
    assert {row["image_dtype"] for row in expected.values()} == {"uint8", "uint16"}
    # One side of a split reads its own images only.
    side = [sample for sample in packed.samples if sample.fold == 1]
    assert set(read(packed.only(side))) == {"empty", "grey"}


def test_training_draws_the_same_crops(bowl: Path, tmp_path: Path, ray_session: None) -> None:
    pack(bowl, tmp_path / "packed", images_per_part=2)
    (one, crops), (other, same) = (
        some_crops(find(bowl)),
        some_crops(find_training_set(Location(str(tmp_path / "packed")))),
    )
    assert [(image.image_id, image.kind) for image in one.images] == [
        (image.image_id, image.kind) for image in other.images
    ]
    assert (one.overlap_px, one.n_empty, one.errors) == (other.overlap_px, other.n_empty, other.errors)
    for drawn, again in zip(crops, same, strict=True):
        np.testing.assert_array_equal(drawn, again)


def test_the_same_set_packs_to_the_same_bytes_and_can_be_packed_again(
    bowl: Path, tmp_path: Path, ray_session: None
) -> None:
    for name in ("once", "twice"):
        pack(bowl, tmp_path / name, images_per_part=3)
    for path in sorted((tmp_path / "once").iterdir()):
        assert path.read_bytes() == (tmp_path / "twice" / path.name).read_bytes()
    told = run_pack(PackSettings(data=str(tmp_path / "once"), output=str(tmp_path / "anew"), images_per_part=5))
    assert told.startswith("7 images packed into 2 parts")
    anew = find_training_set(Location(str(tmp_path / "anew")))
    assert described(anew) == described(find(bowl))
    assert read(anew) == read(find(bowl))


def test_parts_are_tables_that_explain_themselves(bowl: Path, tmp_path: Path, ray_session: None) -> None:
    pack(bowl, tmp_path / "packed")
    table = pq.read_table(tmp_path / "packed/part-00000.parquet")
    assert list(
        zip(*(table.column(name).to_pylist() for name in ("image_id", "group", "kind", "fold")), strict=True)
    ) == (described(find(bowl)))
    image = unpack("image", table, 1)
    stored = cv2.imread(str(bowl / "set/deep/images/deep.png"), cv2.IMREAD_UNCHANGED)
    assert image is not None and image.dtype == np.uint16
    np.testing.assert_array_equal(image, stored)
    assert table.schema.field("image").type == pa.large_binary()
    codec = pq.ParquetFile(tmp_path / "packed/part-00000.parquet").metadata.row_group(0).column(4).compression
    assert codec == "ZSTD"


def test_an_index_given_later_describes_a_packed_set_anew(bowl: Path, tmp_path: Path, ray_session: None) -> None:
    pack(bowl, tmp_path / "packed")
    index = tmp_path / "index.csv"
    index.write_text("ImageId,kind\n" + "".join(f"{name},new {name}\n" for name in SHAPES))
    found = find_training_set(Location(str(tmp_path / "packed")), index=Location(str(index)))
    assert [(group, fold) for _, group, _, fold in described(found)] == [
        (group, fold) for _, group, _, fold in described(find(bowl))
    ]
    assert {name: row["kind"] for name, row in read(found).items()} == {name: f"new {name}" for name in SHAPES}


def test_an_unreadable_image_is_named_and_nothing_is_left(bowl: Path, tmp_path: Path, ray_session: None) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "set").symlink_to(tmp_path / "copy")
    for path in (bowl / "set").rglob("*.png"):
        target = tmp_path / "copy" / path.relative_to(bowl / "set")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    (bad / "index.csv").write_bytes((bowl / "index.csv").read_bytes())
    mask = tmp_path / "copy/odd/masks/2.png"
    mask.write_bytes(mask.read_bytes()[:40])
    message = r"^odd/masks/2\.png: not an image.*; correct or remove what cannot be read$"
    with pytest.raises(InputError, match=message):
        pack(bad, tmp_path / "packed", images_per_part=2)
    assert list((tmp_path / "packed").iterdir()) == []
    mask.write_bytes((bowl / "set/odd/masks/2.png").read_bytes())
    pack(bad, tmp_path / "packed", images_per_part=2)
    assert read(find_training_set(Location(str(tmp_path / "packed")))) == read(find(bowl))


def test_what_broke_off_is_no_set_and_the_same_command_goes_on(bowl: Path, tmp_path: Path, ray_session: None) -> None:
    packed = tmp_path / "packed"
    (packed / "part-00002.parquet").mkdir(parents=True)  # in the way of the third part
    with pytest.raises(OutputError, match=r"part-00002\.parquet: cannot be written, a folder stands"):
        pack(bowl, packed, images_per_part=2)
    assert json.loads((packed / "packing.json").read_text())["format"] == 1
    with pytest.raises(InputError, match=r"no packed\.json"):
        find_training_set(Location(str(packed)))
    (packed / "part-00002.parquet").rmdir()
    with pytest.raises(OutputMismatchError, match="other --images-per-part"):
        pack(bowl, packed, images_per_part=3)
    pack(bowl, packed, images_per_part=2)
    assert read(find_training_set(Location(str(packed)))) == read(find(bowl))
    with pytest.raises(OutputError, match="holds a packed set already"):
        pack(bowl, packed, images_per_part=2)


def test_an_output_with_other_files_is_refused_and_left_alone(bowl: Path, tmp_path: Path, ray_session: None) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputMismatchError, match=r"found 1 other files \(such as notes\.txt\); name another --output"):
        pack(bowl, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.slow
def test_the_data_science_bowl_packed(realdata: Path, tmp_path: Path, ray_session: None) -> None:
    bowl = realdata / "dsb2018"
    index = str(bowl / "stage1_train_index.csv")
    run_pack(PackSettings(data=str(bowl / "stage1_train"), index=index, output=str(tmp_path / "packed")))
    folder = find_training_set(Location(str(bowl / "stage1_train")), index=Location(index))
    packed = find_training_set(Location(str(tmp_path / "packed")))
    assert described(packed) == described(folder)
    assert len(packed.samples) == 664 and len(packed.parts) == 11
    # The rows of some images; all of them would fill the memory of a small machine twice.
    chosen = slice(None, None, 20)
    assert read(packed.only(packed.samples[chosen])) == read(folder.only(folder.samples[chosen]))
    assert dataclasses.replace(packed.samples[0], image="") == dataclasses.replace(
        folder.samples[0], image="", masks=(), one_mask=True
    )
