"""``jobs/train.py`` killed after its first checkpoint, as by a power cut, and gone on with by ``--resume``."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

from nucseg_ray import commands
from nucseg_ray.config import TrainSettings
from nucseg_ray.pipelines.models import fetch_bundle
from nucseg_ray.pipelines.training import run_train
from nucseg_ray.storage.fetch import fetch_bytes
from nucseg_ray.storage.listing import find_files
from nucseg_ray.storage.locations import Location

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 400.0
EPOCHS = 4
SETTINGS: dict[str, Any] = {
    "encoder_weights": "none",
    "epochs": EPOCHS,
    "crops_per_epoch": 160,
    "crop_px": 64,
    "batch_size": 8,
    "learning_rate": 3e-3,
    # In which order several threads add up a sum is nowhere promised.
    "threads_per_worker": 1,
    "patience": EPOCHS,
    "pictures": 1,
    "seed": 11,
}
MEASURED = ("seconds", "waiting_seconds", "validation_seconds", "ended_at")


def _flags(data: Path, out: Location, **wanted: Any) -> list[str]:
    settings = {"data": data, "output": out, **SETTINGS, **wanted}
    return [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def _start(flags: list[str], log: Path, mark: Any) -> subprocess.Popen[bytes]:
    with log.open("w") as stream:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "jobs/train.py"), *flags],
            stdout=stream,
            stderr=stream,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true", **mark.environment},
        )


def _files(out: Location, pattern: str) -> list[str]:
    return [name for name, _ in find_files(out) if re.fullmatch(pattern, name)]


def _history(out: Location) -> dict[str, list[float]]:
    table = pyarrow.csv.read_csv(pa.BufferReader(fetch_bytes(out / "history.csv")))
    return {name: table.column(name).to_pylist() for name in table.column_names if name not in MEASURED}


@pytest.fixture(scope="module")
def undisturbed(tiny_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Location:
    """The same training that nothing happened to."""
    out = Location(str(tmp_path_factory.mktemp("undisturbed") / "model"))
    run_train(TrainSettings(data=str(tiny_set), output=out.uri, **SETTINGS))
    return out


@pytest.mark.slow
@pytest.mark.parametrize("place", ["local", "s3"])
def test_a_killed_training_goes_on_as_if_nothing_had_happened(
    place: str,
    tiny_set: Path,
    tmp_path: Path,
    bucket: str,
    undisturbed: Location,
    mark: Any,
    until: Any,
    call: Callable[..., Any],
) -> None:
    out, log = Location(bucket if place == "s3" else str(tmp_path)) / "model", tmp_path / "log.txt"
    flags = _flags(tiny_set, out, mlflow=tmp_path / "store")
    victim = _start(flags, log, mark)
    snapshot = r"checkpoints/run-[0-9a-f]{8}/checkpoint_manager_snapshot\.json"
    until(lambda: victim.poll() is not None or _files(out, snapshot), "the first checkpoint")
    victim.kill()
    assert victim.wait() == -signal.SIGKILL, log.read_text()
    # Ray's processes follow their driver by themselves: no one has to clean up after a kill.
    until(lambda: not mark.processes(), "the processes of the killed training")
    assert not _files(out, r"model\.json|history\.csv")
    seen = _files(out, r"tensorboard/.*tfevents.*")
    assert 1 <= len(seen) < EPOCHS

    refused = call(commands.train, *flags, "--seed", "12", "--resume")
    assert (refused.code, len(refused.said)) == (2, 1)
    assert "was begun with other settings (--seed 11 there, 12 asked for)" in refused.said[0]

    successor = _start([*flags, "--resume"], log, mark)
    assert successor.wait(DEADLINE_S) == 0, log.read_text()
    (after,) = re.findall(r"going on after epoch (\d+)", log.read_text())
    assert 1 <= int(after) < EPOCHS
    assert len(_files(out, r"checkpoints/[^/]+/checkpoint_manager_snapshot\.json")) == 1
    assert len(_files(out, r"tensorboard/.*tfevents.*")) == EPOCHS

    assert _history(out) == _history(undisturbed)
    weights, expected = fetch_bundle(out.uri)[0].weights(), fetch_bundle(undisturbed.uri)[0].weights()
    assert set(weights) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(array, weights[name], err_msg=name)
    for name in ("before_after.png", "validation/scores.json", "validation/images.csv"):
        assert fetch_bytes(out / name) == fetch_bytes(undisturbed / name)
    assert _epochs_in_mlflow(tmp_path / "store") == set(range(1, EPOCHS + 1))

    finished = call(commands.train, *flags, "--resume")
    assert (finished.code, finished.said) == (0, [])


def _epochs_in_mlflow(store: Path) -> set[int]:
    """Give the epochs of the only run there."""
    mlflow = pytest.importorskip("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        client = mlflow.MlflowClient(store.as_uri())
        (run,) = client.search_runs([known.experiment_id for known in client.search_experiments()])
        assert run.info.status == "FINISHED"
        return {metric.step for metric in client.get_metric_history(run.info.run_id, "train_loss")}
