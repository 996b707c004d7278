"""Manifests: which files a row names, and what is refused."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nucseg_ray.errors import InputError, MissingInputError
from nucseg_ray.storage.atomic import write_bytes
from nucseg_ray.storage.labelled_images import Sample, locate
from nucseg_ray.storage.locations import Location
from nucseg_ray.storage.training_sets import TrainingSet, find_training_set


def find(manifest: Location, content: str | bytes | dict[str, Any] | pa.Table) -> TrainingSet:
    if isinstance(content, dict | pa.Table):
        sink = io.BytesIO()
        pq.write_table(pa.table(content) if isinstance(content, dict) else content, sink)
        content = sink.getvalue()
    write_bytes(manifest, content.encode() if isinstance(content, str) else content)
    return find_training_set(manifest)


def test_rows_name_files_anywhere(out: Location) -> None:
    found = find(
        out / "deep/set.csv",
        "image,mask\na.png,./masks//a.png\nb/../b.png,../b.png\n/scan/c.tif,s3://bucket/c.png\nfile:///d.png,d.png\n",
    )
    assert found.root == out / "deep"
    assert found.layout == "manifest set.csv, one mask file an image"
    assert [(each.image_id, each.image, *each.masks) for each in found.samples] == [
        ("/scan/c.tif", "/scan/c.tif", "s3://bucket/c.png"),
        ("a.png", "a.png", "masks/a.png"),
        ("b/../b.png", "b.png", f"{out}/b.png"),
        ("file:///d.png", "/d.png", "d.png"),
    ]
    assert all(each.one_mask and each.group == each.image_id for each in found.samples)
    places = [locate(found.root, path).uri for each in found.samples for path in (each.image, *each.masks)]
    assert places[:4] == ["/scan/c.tif", "s3://bucket/c.png", f"{out}/deep/a.png", f"{out}/deep/masks/a.png"]
    assert places[5] == f"{out}/b.png"


CSV = (
    '\ufeff"mask", image,mosaic_idx,modality,note,topcoders_fold\r\n'
    '"2, right.png","a, ""left"".png",7,tissue,"two\nlines",3\r\n'
    "\r\n"
    "b_mask.png,b.png,,,,2.0\r\n"
    "c_mask.png,c.png,8,cells,,\r\n"
)
PARQUET = {
    "image": ['a, "left".png', "b.png", "c.png"],
    "mask": pa.array(["2, right.png", "b_mask.png", "c_mask.png"]).dictionary_encode(),
    "group": [7.0, float("nan"), 8.0],
    "kind": ["tissue", None, "cells"],
    "fold": pa.array([3, 2, None], pa.int8()),
    "boxes": [[1], [2, 3], []],
}


@pytest.mark.parametrize(("name", "content"), [("Set.CSV", CSV), ("set.parquet", PARQUET)])
def test_group_kind_and_fold_come_along(tmp_path: Path, name: str, content: Any) -> None:
    manifest = tmp_path / name
    samples = find(Location(str(manifest)), content).samples
    a = 'a, "left".png'
    rows = ("line 3", "line 5", "line 6") if name == "Set.CSV" else ("row 1", "row 2", "row 3")
    named = [f"{manifest}, {row}" for row in rows]
    assert samples == (
        Sample(a, a, ("2, right.png",), one_mask=True, group="7", kind="tissue", fold=3, named_in=named[0]),
        Sample("b.png", "b.png", ("b_mask.png",), one_mask=True, group="b.png", fold=2, named_in=named[1]),
        Sample("c.png", "c.png", ("c_mask.png",), one_mask=True, group="8", kind="cells", named_in=named[2]),
    )


def test_a_manifest_may_name_its_images_and_an_index_describe_them(tmp_path: Path) -> None:
    (tmp_path / "set.csv").write_text("image_id,image,mask,group,kind\ny,1.png,m.png,g,k\nx,0.png,m.png,,k\n")
    (tmp_path / "index.csv").write_text("ImageId,kind,fold\nx,other,1\ny,,0\n")
    samples = find_training_set(
        Location(str(tmp_path / "set.csv")), index=Location(str(tmp_path / "index.csv"))
    ).samples
    # What the index leaves open stays as the manifest says it.
    assert [(each.image_id, each.image, each.group, each.kind, each.fold) for each in samples] == [
        ("x", "0.png", "x", "other", 1),
        ("y", "1.png", "g", "k", 0),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(
            "image,group\na,1\n", ": expected the columns image and mask, found image, group; add mask", id="no mask"
        ),
        pytest.param(
            "ImageId;mask\n", ": expected the columns.*found ImageId;mask; add image and mask", id="semicolons"
        ),
        pytest.param("", ": expected the columns.*found none", id="empty file"),
        pytest.param("image,mask\n\n", ": expected a row an image, found none", id="no rows"),
        pytest.param(
            "image,mask,kind\na,b,\n,,\n", ", line 3: expected a path, found nothing in image and mask", id="blank"
        ),
        pytest.param("image,mask\na,\n", ", line 2: expected a path, found nothing in mask", id="mask empty"),
        pytest.param("image,mask\na,b\nc\n", ", line 3: expected 2 values .image, mask., found 1", id="short row"),
        pytest.param("image,mask\na,b\nc, d,e\n", ", line 3: expected 2 values .image, mask., found 3", id="long row"),
        pytest.param("image,mask,mask\na,b,c\n", ": the column mask is there 2 times", id="a column twice"),
        pytest.param("image,mask\na,a\n", ", line 2: expected an image and its mask, found a as both", id="itself"),
        pytest.param("image,mask\na,m\nb,m\n./a,m\n", ", line 4: a was named in line 2 already", id="image twice"),
        pytest.param("image,mask,ImageId\na,m,x\nb,m,x\n", ", line 3: x was named in line 2 already", id="id twice"),
        pytest.param(
            "image,mask,fold\na,m,first\n", ", line 2: image a: expected a number in fold, found 'first'", id="fold"
        ),
        pytest.param("image,mask\na,smb3://x\n", ", line 2: smb3://x: no filesystem is known", id="unknown protocol"),
        pytest.param("image,mask\na,s3://me:word@host/x\n", ", line 2: .*carries a password", id="password"),
        pytest.param("image,mask\na,m\0\n", ", line 2: .*expected a relative path", id="nul"),
        pytest.param('image,mask\na,"m\nb,n\n', ": expected a CSV in UTF-8; unexpected end of data", id="open quote"),
        pytest.param(b"image,mask\n\xff,m\n", ": expected a CSV in UTF-8", id="not UTF-8"),
    ],
)
def test_a_csv_that_does_not_fit_is_refused(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=rf"set\.csv{message}"):
        find(Location(str(tmp_path / "set.csv")), content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param({"image": ["a"]}, ": expected the columns image and mask, found image; add mask", id="no mask"),
        pytest.param({"image": ["a", "b"], "mask": ["m", None]}, ", row 2: .*found nothing in mask", id="null"),
        pytest.param({"image": ["a", "a"], "mask": ["m", "n"]}, ", row 2: a was named in row 1 already", id="twice"),
        pytest.param(
            {"image": ["a"], "mask": [["m", "n"]]}, ": expected text or numbers in the column mask", id="list"
        ),
        pytest.param(
            pa.table([["a"]] * 3, ["image", "mask", "mask"]), ": the column mask is there 2 times", id="column"
        ),
        pytest.param(b"image,mask\na,b\n", ": expected a Parquet file", id="a CSV"),
    ],
)
def test_a_parquet_file_that_does_not_fit_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(InputError, match=rf"set\.parquet{message}"):
        find(Location(str(tmp_path / "set.parquet")), content)


def test_a_path_may_not_climb_out_of_its_bucket(memory: Location) -> None:
    assert find(memory / "set.csv", "image,mask\na,b\n").samples[0].image == "a"
    with pytest.raises(InputError, match=r"line 2: \.\./\.\./a leads out of memory://.*; give the whole URI"):
        find(memory / "deep/set.csv", "image,mask\n../../a,b\n")


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"nowhere\.csv: expected a file, found none"):
        find_training_set(Location(str(tmp_path / "nowhere.csv")))
