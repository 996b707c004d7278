"""Scores with real Ray processes: hand-made masks with numbers worked out by hand, and a model against a plain loop."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from nucseg_ray import commands
from nucseg_ray.config import EvaluateSettings
from nucseg_ray.errors import InputError, UsageError
from nucseg_ray.imaging.codecs import decode_label_png, encode_label_png
from nucseg_ray.imaging.metrics import Matches, bowl_score, match, pool
from nucseg_ray.pipelines.evaluation import run_evaluate

SHAPE = (40, 50)


def _labels(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    """Draw boxes ``(y0, x0, y1, x1)``, half-open."""
    labels = np.zeros(SHAPE, np.int32)
    for number, (y0, x0, y1, x1) in enumerate(boxes, 1):
        labels[y0:y1, x0:x1] = number
    return labels


# Image a: one nucleus exactly, one shifted by a column (IoU 90/110 = 9/11). Image b: one missed and one invented.
# Image c: nothing where nothing is. Each box has 100 pixels.
TRUTH = {
    "P/A01/1.png": _labels((0, 0, 10, 10), (20, 20, 30, 30)),
    "P/A02/1.png": _labels((5, 5, 15, 15)),
    "P/A03/1.png": _labels(),
}
PREDICTED = {
    "P/A01/1.png": _labels((20, 21, 30, 31), (0, 0, 10, 10)),
    "P/A02/1.png": _labels((25, 30, 35, 40)),
    "P/A03/1.png": _labels(),
}


def _write(folder: Path, images: dict[str, np.ndarray]) -> str:
    for name, labels in images.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encode_label_png(labels))
    return str(folder)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_masks_score_what_was_worked_out_by_hand(tmp_path: Path, ray_session: None) -> None:
    masks, truth = _write(tmp_path / "masks", PREDICTED), _write(tmp_path / "truth", TRUTH)
    # A mask without truth is none of its business.
    _write(tmp_path / "masks", {"P/A04/1.png": _labels((0, 0, 5, 5))})
    summary = run_evaluate(EvaluateSettings(output=str(tmp_path / "out"), masks=masks, truth=truth))
    assert list(summary) == ["all"]
    scores = summary["all"]
    assert (scores["images"], scores["nuclei"], scores["predicted"]) == (3, 3, 3)
    # Up to 0.80 the shifted one counts: tp 2, fp 1, fn 1; from 0.85 on it does not: tp 1, fp 2, fn 2.
    assert scores["thresholds"] == pytest.approx([0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95])
    assert scores["ap"] == pytest.approx([2 / 4] * 7 + [1 / 5] * 3, abs=1e-6)
    for name in ("precision", "recall", "f1"):
        assert scores[name] == pytest.approx([2 / 3] * 7 + [1 / 3] * 3, abs=1e-6)
    assert scores["panoptic_quality"] == pytest.approx([(1 + 9 / 11) / 3] * 7 + [1 / 3] * 3, abs=1e-6)
    assert scores["mean_ap"] == pytest.approx((7 * 0.5 + 3 * 0.2) / 10, abs=1e-6)
    # By image: a 7 times 1 and 3 times 1/3; b 0; c 1.
    assert scores["bowl_score"] == pytest.approx((0.8 + 0 + 1) / 3, abs=1e-6)
    assert scores["dice"] == pytest.approx(2 * 190 / 600, abs=1e-6)
    assert scores["pixel_iou"] == pytest.approx(190 / 410, abs=1e-6)

    assert json.loads((tmp_path / "out/scores.json").read_text()) == summary
    rows = _rows(tmp_path / "out/images.csv")
    assert [(row["image_id"], row["nuclei"], row["predicted"], row["ap50"], row["mean_ap"]) for row in rows] == [
        ("P/A01/1.png", "2", "2", "1.0000", "0.8000"),
        ("P/A02/1.png", "1", "1", "0.0000", "0.0000"),
        ("P/A03/1.png", "0", "0", "1.0000", "1.0000"),
    ]
    assert cv2.imread(str(tmp_path / "out/ap_curve.png")) is not None


@pytest.mark.parametrize("spoil", ["missing", "damaged", "other size"])
def test_a_mask_that_cannot_be_scored_is_named(tmp_path: Path, call: Callable[..., Any], spoil: str) -> None:
    masks, truth = _write(tmp_path / "masks", PREDICTED), _write(tmp_path / "truth", TRUTH)
    mask = tmp_path / "masks/P/A02/1.png"
    if spoil == "missing":
        mask.unlink()
    elif spoil == "damaged":
        mask.write_bytes(mask.read_bytes()[:40])
    else:
        mask.write_bytes(encode_label_png(np.ones((8, 8), np.int32)))
    ended = call(commands.evaluate, "--masks", masks, "--truth", truth, "--output", tmp_path / "out")
    assert (ended.code, ended.printed, len(ended.said)) == (2, [], 1)
    assert ended.said[0].startswith("error: ") and "P/A02/1.png" in ended.said[0]
    assert not (tmp_path / "out/scores.json").exists()


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"masks": "m"},
        {"model": "m"},
        {"model": "m", "truth": "t"},
        {"model": "m", "data": "d", "masks": "m"},
        {"model": "m", "data": "d", "masks": "m", "truth": "t"},
    ],
)
def test_flags_that_contradict_each_other_are_refused(tmp_path: Path, given: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=r"expected either --model with --data, or --masks with --truth"):
        run_evaluate(EvaluateSettings(output=str(tmp_path / "out"), **given))


def test_a_folder_without_truth_is_refused(tmp_path: Path, ray_session: None) -> None:
    masks = _write(tmp_path / "masks", PREDICTED)
    (tmp_path / "truth").mkdir()
    with pytest.raises(InputError, match=r"truth: expected label images as PNG, found none"):
        run_evaluate(EvaluateSettings(output=str(tmp_path / "out"), masks=masks, truth=str(tmp_path / "truth")))


@pytest.fixture(scope="module")
def labelled(tiny_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine images of two kinds with an index: six in fold 0 (kinds odd and even), three in fold 1."""
    folder = tmp_path_factory.mktemp("labelled")
    lines = ["ImageId,kind,fold"]
    for number, image in enumerate(sorted((tiny_set / "images").iterdir())[:9]):
        for name in ("images", "masks"):
            (folder / "set" / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(tiny_set / name / image.name, folder / "set" / name)
        lines.append(f"{image.stem},{'odd' if number % 2 else 'even'},{number // 6}")
    (folder / "index.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_a_model_is_scored_as_in_a_plain_loop(
    tmp_path: Path, labelled: Path, tiny_model: Path, segment: Callable[..., np.ndarray]
) -> None:
    summary = run_evaluate(
        EvaluateSettings(
            output=str(tmp_path / "out"),
            model=str(tiny_model),
            data=str(labelled / "set"),
            index=str(labelled / "index.csv"),
            fold=0,
        )
    )
    matches: dict[str, list[Matches]] = {"even": [], "odd": []}
    for number, image in enumerate(sorted((labelled / "set/images").iterdir())[:6]):
        mask = (labelled / "set/masks" / image.name).read_bytes()
        matches["odd" if number % 2 else "even"].append(match(decode_label_png(mask, name=""), segment(image)))
    expected = {**matches, "all": matches["even"] + matches["odd"]}
    assert list(summary) == ["all", "even", "odd"]
    for name, images in expected.items():
        pooled = pool(images)
        assert summary[name]["images"] == len(images)
        assert (summary[name]["nuclei"], summary[name]["predicted"]) == (pooled.n_truth, pooled.n_predicted)
        assert summary[name]["ap"] == pytest.approx(pooled.ap.tolist(), abs=1e-6)
        assert summary[name]["bowl_score"] == pytest.approx(bowl_score(images), abs=1e-6)
        assert summary[name]["dice"] == pytest.approx(pooled.dice, abs=1e-6)
    assert summary["all"]["ap"][0] > 0.3
    assert json.loads((tmp_path / "out/scores.json").read_text()) == summary
    assert [row["kind"] for row in _rows(tmp_path / "out/images.csv")] == ["even", "odd"] * 3
    assert cv2.imread(str(tmp_path / "out/ap_curve.png")) is not None


def test_a_fold_that_is_not_there_is_refused(
    tmp_path: Path, labelled: Path, tiny_model: Path, call: Callable[..., Any]
) -> None:
    flags = ["--model", tiny_model, "--data", labelled / "set", "--output", tmp_path / "out", "--fold", "2"]
    ended = call(commands.evaluate, *flags, "--index", labelled / "index.csv")
    assert (ended.code, ended.said) == (2, ["error: --fold 2: no image is in it; found the folds [0, 1]"])
    ended = call(commands.evaluate, *flags)
    assert (ended.code, ended.said) == (2, ["error: --fold 2: no image is in it; found the folds none (give --index)"])
