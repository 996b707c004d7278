"""The model that ships, and the network that stands for it, on images with a truth: what README and card promise."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nucseg_ray import commands
from nucseg_ray.config_synthesize import SynthesizeSettings
from nucseg_ray.pipelines.synthesis import run_synthesize

FOLD0 = Path(__file__).resolve().parents[2] / "benchmarks" / "fold0"


@pytest.mark.slow
def test_nuclei_of_a_synthetic_plate_are_found(tmp_path: Path, ray_session: None, call: Callable[..., Any]) -> None:
    run_synthesize(SynthesizeSettings(output=str(tmp_path), kind="plate", plate="P", wells=24, empty_wells=3, seed=2))
    ended = call(commands.predict, "--input", tmp_path / "P", "--output", tmp_path / "out")
    assert (ended.code, ended.printed[0].split(" (")[0]) == (0, "24 sites = 21 segmented + 3 empty + 0 failed")
    flags = ["--masks", tmp_path / "out/masks", "--truth", tmp_path / "truth", "--output", tmp_path / "scores"]
    assert call(commands.evaluate, *flags).code == 0
    scores = json.loads((tmp_path / "scores/scores.json").read_text())["all"]
    assert scores["images"] == 24 and scores["nuclei"] > 500 and scores["f1"][0] >= 0.95


@pytest.mark.slow
def test_a_fold_that_was_not_seen_scores_what_the_card_tells(
    tmp_path: Path, realdata: Path, call: Callable[..., Any]
) -> None:
    data = realdata / "dsb2018"
    flags = ["--data", data / "stage1_train", "--index", data / "stage1_train_index.csv", "--fold", "0"]
    assert call(commands.evaluate, "--model", FOLD0, *flags, "--output", tmp_path / "scores").code == 0
    scores = json.loads((tmp_path / "scores/scores.json").read_text())
    fluorescence, colour = scores["fluorescence"]["ap"], scores["histology_colour"]["ap"]
    assert (scores["all"]["images"], scores["all"]["nuclei"]) == (166, 6973)
    assert fluorescence[0] >= 0.83 and fluorescence[5] >= 0.63 and colour[0] >= 0.60
    assert scores["all"]["bowl_score"] >= 0.60
