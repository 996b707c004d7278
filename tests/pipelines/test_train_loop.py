"""Which weights a training keeps."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

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


@pytest.mark.parametrize(("keeps_last", "kept"), [(False, 1), (True, 3)])
def test_the_best_weights_are_kept_or_the_last(tmp_path: Path, keeps_last: bool, kept: int) -> None:
    plan: Any = SimpleNamespace(keeps_last=keeps_last)
    replica = SimpleNamespace(show=lambda weights: None)
    loop = _Loop(plan, replica, Scores(0.3, 0.7, 0.5, 0.7), Share(size=1, rank=0, workers=1))
    for epoch in range(4):
        state = {"kernel:0": np.full(2, epoch, np.float32)}
        loop._history.append(loop._score(state))
        loop._save(tmp_path, state)
    assert read_arrays(tmp_path / KEPT)["kernel:0"].tolist() == [kept, kept]
