"""An optional copy of a training's settings, epochs and scores in MLflow.

It must be reachable before training begins. If it fails later, training goes on: what is missing is sent in the end.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from nucseg_ray.config import TrainSettings
from nucseg_ray.errors import UsageError

EXPERIMENT = "nucseg_ray"
_SCORES = {"ap_50": ("ap", 0), "ap_75": ("ap", 5), "f1_50": ("f1", 0), "panoptic_quality_50": ("panoptic_quality", 0)}
_PLAIN_SCORES = ("mean_ap", "bowl_score", "dice")
logger = logging.getLogger(__name__)


class NoLog:
    """Takes everything and keeps nothing: what a training has without ``--mlflow``."""

    run_id: str | None = None

    def begin(self, settings: TrainSettings, *, earlier: str | None) -> None:
        """Begin a run, or go on with an earlier one."""

    def epoch(self, row: Mapping[str, float]) -> None:
        """Take a row of the history."""

    def finish(self, history: Sequence[Mapping[str, float]], summaries: Mapping[str, Mapping[str, Any]]) -> None:
        """Take the whole history, and the scores by form of the network and kind of image."""

    def __enter__(self) -> Self:
        """Do nothing."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Say how the training ended."""


class MlflowLog(NoLog):
    """A run on an MLflow tracking server, in a database or in a folder.

    Raises
    ------
    UsageError
        MLflow is not installed, or there is none at that URI.
    """

    def __init__(self, uri: str) -> None:
        """Connect, and make sure of the experiment."""
        if re.search(r"//[^/]*:[^/]*@", uri):
            raise UsageError(
                "--mlflow: the URI carries a password (not shown here), which would end up in settings.json; give it "
                "in MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            )
        self._uri = _absolute(uri)
        if self._uri.startswith("file:"):
            # MLflow would rather have a database, and asks to be told that a folder is meant.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        # A server that is not there would be asked for minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        try:
            mlflow, self._entities = importlib.import_module("mlflow"), importlib.import_module("mlflow.entities")
        except ImportError as error:
            raise UsageError("--mlflow: mlflow is not installed; install nucseg_ray[mlflow]") from error
        try:
            self._client = mlflow.MlflowClient(tracking_uri=self._uri)
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
            known = self._client.get_experiment_by_name(name)
            self._experiment = known.experiment_id if known else self._client.create_experiment(name)
        except Exception as error:  # the stores behind it have no common class of error
            raise UsageError(
                f"--mlflow {uri}: expected an MLflow tracking server or store, found none ({error})"
            ) from error

    def begin(self, settings: TrainSettings, *, earlier: str | None) -> None:
        """Begin a run with the settings as its parameters, or go on with an earlier one."""
        try:
            if earlier is not None:
                self._client.update_run(earlier, status="RUNNING")
                self.run_id = earlier
                return
            run = self._client.create_run(self._experiment, run_name=Path(settings.output).name)
            self.run_id = run.info.run_id
            params = [self._entities.Param(name, str(value)) for name, value in settings.model_dump().items()]
            self._client.log_batch(self.run_id, params=params)
        except Exception as error:
            raise UsageError(f"--mlflow {self._uri}: the run cannot be recorded there ({error})") from error

    def epoch(self, row: Mapping[str, float]) -> None:
        """Send a row of the history, its ``epoch`` as the step."""
        try:
            self._send(row)
        except Exception as error:  # a night's training is worth more than its copy
            logger.warning("MLflow did not take epoch %d, it will be sent in the end: %s", row["epoch"], error)

    def finish(self, history: Sequence[Mapping[str, float]], summaries: Mapping[str, Mapping[str, Any]]) -> None:
        """Send the epochs that are missing there, and the scores as ``<form>/<kind>/<score>``."""
        try:
            sent = {metric.step for metric in self._client.get_metric_history(self.run_id, "train_loss")}
            for row in history:
                if row["epoch"] not in sent:
                    self._send(row)
            at = round(time.time() * 1000)
            metrics = [
                self._entities.Metric(_name(f"{form}/{kind}/{score}"), value, at, len(history))
                for form, summary in summaries.items()
                for kind, group in summary.items()
                for score, value in _chosen_scores(group).items()
            ]
            for start in range(0, len(metrics), 500):  # a server takes no more than 1000 at a time
                self._client.log_batch(self.run_id, metrics=metrics[start : start + 500])
        except Exception as error:
            logger.warning("MLflow did not take the scores: %s", error)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Say how the training ended."""
        if self.run_id is None:
            return
        status = "FINISHED" if kind is None else "FAILED" if issubclass(kind, Exception) else "KILLED"
        try:
            self._client.set_terminated(self.run_id, status=status)
        except Exception as problem:
            logger.warning("MLflow was not told that the training ended: %s", problem)

    def _send(self, row: Mapping[str, float]) -> None:
        at, step = round(row["ended_at"] * 1000), int(row["epoch"])
        metrics = [
            self._entities.Metric(name, value, at, step)
            for name, value in row.items()
            if name not in ("epoch", "ended_at")
        ]
        self._client.log_batch(self.run_id, metrics=metrics)


def open_log(uri: str | None) -> NoLog:
    """Connect to MLflow at a URI; without one, give a log that keeps nothing."""
    return NoLog() if uri is None else MlflowLog(uri)


def _absolute(uri: str) -> str:
    """Write a path as a URI."""
    return uri if "://" in uri or uri.startswith("databricks") else Path(uri).expanduser().absolute().as_uri()


def _name(metric: str) -> str:
    """Replace what MLflow does not accept in the name of a metric: a kind of image may be called anything."""
    return re.sub(r"[^\w\-. /]", "_", metric, flags=re.ASCII)


def _chosen_scores(group: Mapping[str, Any]) -> dict[str, float]:
    return {
        **{name: group[column][threshold] for name, (column, threshold) in _SCORES.items()},
        **{name: group[name] for name in _PLAIN_SCORES},
    }
