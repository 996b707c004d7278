"""The tables of scores, on label images made by hand."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest

from nucseg_ray.imaging.codecs import encode_label_png


@pytest.fixture(scope="module")
def quality(script):
    return script("quality.py")


def write_set(folder: Path, labels: Path, found: dict[str, np.ndarray]) -> None:
    """Write truths of two nuclei a image, and what was found."""
    truth = np.zeros((20, 40), np.int32)
    truth[2:12, 2:12], truth[2:12, 20:30] = 1, 2
    for at in (folder / "masks", labels):
        at.mkdir(parents=True)
    rows = ["image,mask,image_id,kind,group,fold"]
    for name, kind in (("a", "grey"), ("b", "colour")):
        (folder / "masks" / f"{name}.png").write_bytes(encode_label_png(truth))
        (labels / f"{name}.png").write_bytes(encode_label_png(np.where(np.isin(truth, found[name]), truth, 0)))
        rows.append(f"images/{name}.png,masks/{name}.png,{name},{kind},g,0")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")


def test_label_images_are_scored_by_kind(quality, tmp_path):
    write_set(tmp_path / "set", tmp_path / "labels", {"a": [1, 2], "b": [1]})
    scores = quality.score_labels(tmp_path / "labels", tmp_path / "set")
    assert list(scores) == ["all", "colour", "grey"]
    assert scores["grey"] == dict(zip(quality.COLUMNS, [1, 2, 1, 1, 1, 1, 1, 1], strict=True))
    assert scores["colour"]["AP@0.5"] == 0.5 and scores["colour"]["F1@0.5"] == pytest.approx(2 / 3)
    assert scores["all"]["AP@0.75"] == 0.75  # pooled over nuclei
    assert scores["all"]["Bowl score"] == 0.75  # the mean over images


def test_tables(quality, tmp_path):
    row = dict(zip(quality.COLUMNS, [2, 4, 0.75, 0.7, 0.6, 0.8, 0.7, 0.5], strict=True))
    assert quality.by_kind("one", {"all": row}).splitlines()[-1] == (
        "| all | 2 | 4 | 0.750 | 0.700 | 0.600 | 0.800 | 0.700 | 0.500 |"
    )
    sets = {"plain": {"all": row}, "blur": {"all": {**row, "Bowl score": 0.45, "mean AP": 0.55}}}
    assert quality.by_set({"one": sets, "two": sets}).splitlines()[-1] == (
        "| blur | 0.550 | 0.450 | 0.90 | 0.550 | 0.450 | 0.90 |"
    )


def test_a_peer_is_a_name_and_a_folder(quality, tmp_path):
    assert quality._peer(f"StarDist={tmp_path}") == ("StarDist", tmp_path)
    for text in ("StarDist", "StarDist=", f"={tmp_path}", f"StarDist={tmp_path}/none"):
        with pytest.raises(argparse.ArgumentTypeError, match="expected NAME=FOLDER with a folder of label images"):
            quality._peer(text)
