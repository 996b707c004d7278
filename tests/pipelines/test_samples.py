"""Labelled images read through Ray are what a plain loop over their files reads."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import ray

from nucseg_ray.config import PackSettings
from nucseg_ray.config_synthesize import SynthesizeSettings
from nucseg_ray.pipelines.packing import run_pack
from nucseg_ray.pipelines.rows import unpack
from nucseg_ray.pipelines.samples import SAMPLE_SCHEMA, read_samples, report_oddities
from nucseg_ray.pipelines.synthesis import run_synthesize
from nucseg_ray.storage.locations import Location
from nucseg_ray.storage.training_sets import find_training_set

IMAGES = 11


def _read(where: Path | Location) -> dict[str, dict[str, Any]]:
    """Read a training set through Ray; rows by image id."""
    found = find_training_set(where if isinstance(where, Location) else Location(str(where)))
    rows: dict[str, dict[str, Any]] = {}
    for table in ray.get(read_samples(found).to_arrow_refs()):
        assert table.schema.names == SAMPLE_SCHEMA.names
        for row in range(table.num_rows):
            values = {name: table.column(name)[row].as_py() for name in ("kind", "overlap_px", "n_empty", "error")}
            arrays = {name: unpack(name, table, row) for name in ("image", "labels")}
            rows[table.column("image_id")[row].as_py()] = {**values, **arrays}
    return rows


def _upload(folder: Path, bucket: Location) -> Location:
    bucket.fs.put(f"{folder}/", bucket.path, recursive=True)
    return bucket


def _image(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def _box(y0: int, x0: int, y1: int, x1: int) -> np.ndarray:
    mask = np.zeros((30, 40), np.uint8)
    mask[y0:y1, x0:x1] = 255
    return mask


def _sample(folder: Path, name: str, *masks: np.ndarray) -> None:
    for below in ("images", "masks"):
        (folder / name / below).mkdir(parents=True)
    cv2.imwrite(str(folder / name / "images" / f"{name}.png"), np.arange(1200, dtype=np.uint16).reshape(30, 40))
    for number, mask in enumerate(masks):
        cv2.imwrite(str(folder / name / "masks" / f"{number}.png"), mask)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> dict[str, Path]:
    """The same synthetic images in both layouts."""
    folder = tmp_path_factory.mktemp("sets")
    look: dict[str, Any] = {"shape_px": (64, 80), "nuclei": (0, 6), "radius_px": (4.0, 8.0), "images": IMAGES}
    for layout in ("bowl", "paired"):
        run_synthesize(SynthesizeSettings(output=str(folder / layout), layout=layout, **look))
    stems = sorted(path.stem for path in (folder / "paired/images").iterdir())
    lines = ["image,mask,image_id", *(f"paired/images/{stem}.png,paired/masks/{stem}.png,{stem}" for stem in stems)]
    (folder / "manifest.csv").write_text("\n".join(lines))
    run_pack(PackSettings(data=str(folder / "bowl"), output=str(folder / "packed"), images_per_part=4))
    return {name: folder / name for name in ("bowl", "paired", "manifest.csv", "packed")}


@pytest.mark.parametrize("place", ["local", "s3"])
@pytest.mark.parametrize("layout", ["bowl", "paired", "manifest.csv", "packed"])
def test_every_way_to_lie_equals_a_plain_loop(sets: dict[str, Path], bucket: str, layout: str, place: str) -> None:
    where = Location(str(sets[layout]))
    if place == "s3":
        where = _upload(sets[layout].parent, Location(bucket)) / layout
    rows = _read(where)
    assert len(rows) == IMAGES
    for name, row in rows.items():
        np.testing.assert_array_equal(row["image"], _image(sets["paired"] / "images" / f"{name}.png"))
        labels = np.zeros((64, 80), np.int32)
        for number, path in enumerate(sorted((sets["bowl"] / name / "masks").glob("*.png")), 1):
            labels[_image(path) > 0] = number
        np.testing.assert_array_equal(row["labels"], labels)
        assert row["labels"].dtype == np.int32
        assert (row["overlap_px"], row["error"], row["kind"]) == (0, None, "image")


def test_overlap_and_empty_masks_are_counted(
    tmp_path: Path, ray_session: None, caplog: pytest.LogCaptureFixture
) -> None:
    # 5 x 4 pixels are claimed twice; the third is empty, the fourth lies wholly under the first.
    masks = (_box(0, 0, 10, 10), _box(5, 6, 15, 16), _box(0, 0, 0, 0), _box(1, 1, 3, 3))
    _sample(tmp_path, "odd", *masks)
    _sample(tmp_path, "plain", _box(20, 20, 25, 25))
    _sample(tmp_path, "without")
    rows = _read(tmp_path)
    expected = np.zeros((30, 40), np.int32)
    expected[5:15, 6:16] = 2
    expected[:10, :10] = 1
    np.testing.assert_array_equal(rows["odd"]["labels"], expected)
    counts = {name: (row["overlap_px"], row["n_empty"], row["labels"].max()) for name, row in rows.items()}
    assert counts == {"odd": (20 + 4, 2, 2), "plain": (0, 0, 1), "without": (0, 0, 0)}
    assert rows["odd"]["image"].dtype == np.uint16
    with caplog.at_level(logging.WARNING):
        report_oddities(3, overlap_px=24, n_empty=2)
    assert "masks of 3 images: 24 pixels were claimed twice" in caplog.text
    assert "2 masks were empty" in caplog.text
    caplog.clear()
    report_oddities(3, overlap_px=0, n_empty=0)
    assert not caplog.records


def test_what_cannot_be_read_is_a_row_with_its_error(tmp_path: Path, ray_session: None) -> None:
    for name in ("bad_image", "bad_mask", "good", "gone_mask", "other_size"):
        _sample(tmp_path, name, _box(0, 0, 5, 5))
    (tmp_path / "bad_image/images/bad_image.png").write_bytes(b"\x89PNG no more")
    (tmp_path / "bad_mask/masks/0.png").write_bytes(b"")
    (tmp_path / "gone_mask/masks/0.png").unlink()
    (tmp_path / "gone_mask/masks/0.png").symlink_to(tmp_path / "nowhere")
    cv2.imwrite(str(tmp_path / "other_size/masks/0.png"), np.zeros((8, 8), np.uint8))
    rows = _read(tmp_path)
    assert {name for name, row in rows.items() if row["error"] is None} == {"good"}
    assert rows["good"]["labels"].sum() == 25
    for name, told in {
        "bad_image": "bad_image/images/bad_image.png",
        "bad_mask": "bad_mask/masks/0.png",
        "gone_mask": "gone_mask/masks/0.png",
        "other_size": "expected a mask of (30, 40) pixels like other_size/images/other_size.png, found (8, 8)",
    }.items():
        assert told in rows[name]["error"]
        assert rows[name]["image"] is None and rows[name]["labels"] is None


def test_what_a_manifest_names_and_is_not_there_is_told_with_its_row(
    tmp_path: Path, bucket: str, ray_session: None
) -> None:
    _sample(tmp_path, "good", _box(0, 0, 5, 5))
    cv2.imwrite(str(tmp_path / "small.png"), np.zeros((8, 8), np.uint8))
    image, mask = "good/images/good.png", "good/masks/0.png"
    rows = [
        (image, mask),
        ("gone.png", mask),
        (f"{bucket}/gone.png", mask),
        (f"{tmp_path}/{mask}", f"{bucket}/gone.png"),
        (f"file://{tmp_path}/small.png", mask),
    ]
    manifest = tmp_path / "set.csv"
    manifest.write_text("\n".join(["image,mask", *(f"{one},{other}" for one, other in rows)]))
    found = _read(manifest)
    assert {name for name, row in found.items() if row["error"] is None} == {image}
    assert (found[image]["labels"] > 0).sum() == 25
    for line, told in {
        3: f"{tmp_path}/gone.png: expected a file, found none",
        4: f"{bucket}/gone.png: expected a file, found none",
        5: f"{bucket}/gone.png: expected a file, found none",
        6: f"{mask}: expected a mask of (8, 8) pixels like {tmp_path}/small.png, found (30, 40)",
    }.items():
        assert found[rows[line - 2][0]]["error"].startswith(f"{manifest}, line {line}: {told}")


def test_a_part_that_was_altered_is_an_error_of_its_images_only(tmp_path: Path, ray_session: None) -> None:
    for number in range(5):
        _sample(tmp_path / "set", f"image-{number}", _box(0, 0, 5, 5))
    packed = tmp_path / "packed"
    run_pack(PackSettings(data=str(tmp_path / "set"), output=str(packed), images_per_part=2))
    data = bytearray((packed / "part-00001.parquet").read_bytes())
    data[100] ^= 1
    (packed / "part-00001.parquet").write_bytes(data)
    errors = {name: row["error"] for name, row in _read(packed).items()}
    assert [name for name, error in errors.items() if error is not None] == ["image-2", "image-3"]
    assert "part-00001.parquet: was altered" in errors["image-2"]
