"""The commands: parse, connect to Ray, run, print the account, give the exit code.

``jobs/*.py`` call these functions. Nothing else configures logging or connects to Ray.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from nucseg_ray.cli import parse
from nucseg_ray.config import EvaluateSettings, PredictSettings, Settings, TrainSettings
from nucseg_ray.config_synthesize import SynthesizeSettings
from nucseg_ray.errors import NucsegError
from nucseg_ray.submitted import refuse_vanishing_output, with_hint

OK, WRONG_INPUT, TOO_MANY_FAILED, INTERRUPTED = 0, 2, 3, 130
SettingsT = TypeVar("SettingsT", bound=Settings)


def train(argv: Sequence[str]) -> int:
    """Train a model."""

    def work(settings: TrainSettings) -> int:
        from nucseg_ray.pipelines.training import run_train

        run_train(settings)
        return OK

    return _run(TrainSettings, argv, work, prog="train.py")


def predict(argv: Sequence[str]) -> int:
    """Segment a plate or a folder; the account is the last line that is printed."""

    def work(settings: PredictSettings) -> int:
        from nucseg_ray.pipelines.inference import run_predict

        account = run_predict(settings)
        print(account)  # noqa: T201
        return OK if account.is_within(settings.max_failed) else TOO_MANY_FAILED

    return _run(PredictSettings, argv, work, prog="predict.py")


def evaluate(argv: Sequence[str]) -> int:
    """Score a model, or masks."""

    def work(settings: EvaluateSettings) -> int:
        from nucseg_ray.pipelines.evaluation import run_evaluate

        run_evaluate(settings)
        return OK

    return _run(EvaluateSettings, argv, work, prog="evaluate.py")


def synthesize(argv: Sequence[str]) -> int:
    """Draw a training set or a plate."""

    def work(settings: SynthesizeSettings) -> int:
        from nucseg_ray.pipelines.synthesis import run_synthesize

        print(run_synthesize(settings))  # noqa: T201
        return OK

    return _run(SynthesizeSettings, argv, work, prog="synthesize.py")


def _run(settings_class: type[SettingsT], argv: Sequence[str], work: Callable[[SettingsT], int], *, prog: str) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    try:
        settings = parse(settings_class, argv, prog=prog)
        refuse_vanishing_output(settings)
        with _session():
            return work(settings)
    except NucsegError as error:
        print(f"error: {with_hint(' '.join(str(error).split()))}", file=sys.stderr)  # noqa: T201
        return WRONG_INPUT
    except KeyboardInterrupt:
        print("interrupted; what is done stays done, the same command goes on", file=sys.stderr)  # noqa: T201
        return INTERRUPTED


@contextmanager
def _session() -> Iterator[None]:
    # Ray will stop hiding GPUs from tasks that ask for none, and warns until told that we know.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # Ray's C++ side warns of things that its own datasets do; what matters comes as an exception.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    from nucseg_ray.pipelines.session import connected

    with connected():
        yield
