"""The optional copy in MLflow, with a store in a folder; and what is said where there is none."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nucseg_ray import commands
from nucseg_ray.config import TrainSettings
from nucseg_ray.errors import UsageError
from nucseg_ray.pipelines.mlflow_log import MlflowLog, NoLog, open_log

mlflow = pytest.importorskip("mlflow")
SETTINGS = TrainSettings(data="somewhere", output="models/first", epochs=2, seed=4)
GROUP: dict[str, Any] = {
    "ap": [0.1 * n for n in range(10)],
    "f1": [0.6] * 10,
    "panoptic_quality": [0.5] * 10,
    "mean_ap": 0.45,
    "bowl_score": 0.4,
    "dice": 0.8,
}


@pytest.fixture(autouse=True)
def _silent_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    # Put back whatever opening a log sets.
    for name in ("MLFLOW_ALLOW_FILE_STORE", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"):
        monkeypatch.setenv(name, "unset")
        monkeypatch.delenv(name)


def _row(epoch: int) -> dict[str, float]:
    return {"epoch": epoch, "train_loss": 1 / epoch, "validation_score": epoch / 10, "ended_at": 1.7e9 + epoch}


def _only_run(folder: Path) -> Any:
    (run,) = mlflow.MlflowClient(folder.as_uri()).search_runs(["0", *_experiments(folder)])
    return run


def _experiments(folder: Path) -> list[str]:
    return [known.experiment_id for known in mlflow.MlflowClient(folder.as_uri()).search_experiments()]


def _steps(folder: Path, run: Any, name: str) -> dict[int, float]:
    metrics = mlflow.MlflowClient(folder.as_uri()).get_metric_history(run.info.run_id, name)
    return {metric.step: metric.value for metric in metrics}


def test_settings_epochs_and_scores_are_logged(tmp_path: Path) -> None:
    with open_log(str(tmp_path / "store")) as log:
        log.begin(SETTINGS, earlier=None)
        log.epoch(_row(1))
        log.finish([_row(1), _row(2)], {"int8": {"all": GROUP, "a kind (H&E)": GROUP}})
    run = _only_run(tmp_path / "store")
    assert run.info.status == "FINISHED" and run.info.run_name == "first"
    assert run.data.params == {name: str(value) for name, value in SETTINGS.model_dump().items()}
    # The second epoch was not sent when it ended, but in the end; the first not twice.
    assert _steps(tmp_path / "store", run, "train_loss") == {1: 1.0, 2: 0.5}
    assert _steps(tmp_path / "store", run, "validation_score") == {1: 0.1, 2: 0.2}
    history = mlflow.MlflowClient((tmp_path / "store").as_uri()).get_metric_history(run.info.run_id, "train_loss")
    assert sorted(metric.timestamp for metric in history) == [1_700_000_001_000, 1_700_000_002_000]
    for kind in ("all", "a kind _H_E_"):
        scores = {name: value for name, value in run.data.metrics.items() if name.startswith(f"int8/{kind}/")}
        assert scores == pytest.approx(
            {
                f"int8/{kind}/{name}": value
                for name, value in [
                    ("ap_50", 0.0),
                    ("ap_75", 0.5),
                    ("f1_50", 0.6),
                    ("panoptic_quality_50", 0.5),
                    ("mean_ap", 0.45),
                    ("bowl_score", 0.4),
                    ("dice", 0.8),
                ]
            }
        )


def test_a_resumed_training_goes_on_with_its_run(tmp_path: Path) -> None:
    def broken_off() -> str:
        with open_log(str(tmp_path / "store")) as log:
            log.begin(SETTINGS, earlier=None)
            log.epoch(_row(1))
            runs.append(log.run_id)
            raise KeyboardInterrupt

    runs: list[Any] = []
    with pytest.raises(KeyboardInterrupt):
        broken_off()
    assert _only_run(tmp_path / "store").info.status == "KILLED"
    with open_log(str(tmp_path / "store")) as log:
        log.begin(SETTINGS.model_copy(update={"epochs": 9}), earlier=runs[0])
        log.epoch(_row(2))
    run = _only_run(tmp_path / "store")
    assert (run.info.run_id, run.info.status) == (runs[0], "FINISHED")
    assert _steps(tmp_path / "store", run, "train_loss") == {1: 1.0, 2: 0.5}


def test_a_store_that_goes_away_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="nucseg_ray"), open_log(str(tmp_path / "store")) as log:
        log.begin(SETTINGS, earlier=None)
        shutil.rmtree(tmp_path / "store")
        log.epoch(_row(1))
        log.finish([_row(1)], {"int8": {"all": GROUP}})
    said = [record.getMessage().split(":")[0] for record in caplog.records if record.name.startswith("nucseg_ray")]
    assert said == [
        "MLflow did not take epoch 1, it will be sent in the end",
        "MLflow did not take the scores",
        "MLflow was not told that the training ended",
    ]


def test_without_a_uri_nothing_is_logged_and_mlflow_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with open_log(None) as log:
        assert type(log) is NoLog
        log.begin(SETTINGS, earlier=None)
        assert log.run_id is None


def test_a_password_is_not_recorded() -> None:
    with pytest.raises(UsageError, match="carries a password") as raised:
        MlflowLog("https://someone:secret@host/mlflow")
    assert "secret" not in str(raised.value)


def _refused(ended: Any, told: str) -> None:
    assert (ended.code, ended.printed, len(ended.said)) == (2, [], 1)
    assert ended.said[0].startswith("error: --mlflow") and told in ended.said[0]


def test_mlflow_that_is_not_installed_is_said_before_training(
    tmp_path: Path, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    ended = call(commands.train, "--data", tmp_path, "--output", tmp_path / "out", "--mlflow", tmp_path / "store")
    _refused(ended, "mlflow is not installed; install nucseg_ray[mlflow]")


def test_a_server_that_is_not_there_is_said_before_training(tmp_path: Path, call: Callable[..., Any]) -> None:
    # A port that nothing can listen on.
    ended = call(commands.train, "--data", tmp_path, "--output", tmp_path / "out", "--mlflow", "http://127.0.0.1:0")
    _refused(ended, "--mlflow http://127.0.0.1:0: expected an MLflow tracking server or store, found none")
