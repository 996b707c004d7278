"""Which weights a training keeps."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray

from nucseg_ray.model.bundle import read_arrays
from nucseg_ray.pipelines.crops import Share
from nucseg_ray.pipelines.train_loop import KEPT, _Loop


class Scores:
    """Stands in for the validation images: one score after the other."""

    def __init__(self, *scores: float) -> None:
        self._scores = iter(scores)

    def score(self) -> dict[str, float]:
        return {"validation_score": next(self._scores)}

    def predict_shown(self) -> np.ndarray:
        return np.zeros(1, np.uint8)


@pytest.mark.parametrize(("keep", "kept"), [("best", 1), ("last", 8), ("mean", (16 + 8) / 2)])
def test_weights_are_kept_as_asked(ray_session: None, tmp_path: Path, keep: str, kept: float) -> None:
    begun = ray.put({"kernel:0": np.full(2, 16, np.float32)})
    plan: Any = SimpleNamespace(epochs=4, frozen_epochs=4, keep=keep, patience=1, weights=begun)
    shown: list[float] = []
    replica = SimpleNamespace(show=lambda weights: shown.append(float(weights["kernel:0"][0])))
    loop = _Loop(plan, replica, Scores(0.3, 0.7, 0.5, 0.7), Share(size=1, rank=0, workers=1))
    for weight in (0, 1, 4, 8):
        state = {"kernel:0": np.full(2, weight, np.float32), "optimiser/0000": np.ones(3)}
        loop._history.append(loop._score(state))
        loop._save(tmp_path, state)
    assert read_arrays(tmp_path / KEPT)["kernel:0"].tolist() == pytest.approx([kept, kept])
    assert shown[-1] == (8 if keep == "best" else kept)  # what is scored is what would be kept
    assert loop._has_stalled() == (keep == "best")


@pytest.mark.parametrize(
    ("frozen", "scores", "stalled"),
    [
        (6, [0.5, 0.4, 0.3], True),  # without fine-tuning
        (6, [0.5, 0.6, 0.3], False),
        (3, [0.5, 0.4, 0.3], False),  # the encoder has not had its turn
        (3, [0.5, 0.4, 0.3, 0.1, 0.2], False),
        (3, [0.5, 0.4, 0.3, 0.2, 0.1, 0.1], True),
        (0, [0.5, 0.4, 0.3], True),  # from scratch, all learns from the first step
    ],
)
def test_patience_begins_anew_where_the_encoder_joins(frozen: int, scores: list[float], stalled: bool) -> None:
    plan: Any = SimpleNamespace(epochs=6, frozen_epochs=frozen, keep="best", patience=2)
    loop = _Loop(plan, SimpleNamespace(), Scores(), Share(size=1, rank=0, workers=1))
    loop._history = [{"validation_score": score} for score in scores]
    assert loop._has_stalled() == stalled
