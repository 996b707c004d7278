"""The commands: parse, connect to Ray, run, print the account, give the exit code.

``jobs/*.py`` and the installed ``nucseg`` call the same functions. Nothing else configures logging or connects to Ray.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Generic, TypeVar

from nucseg_ray import __doc__ as PACKAGE_SUMMARY
from nucseg_ray import __version__
from nucseg_ray.cli import did_you_mean, parse
from nucseg_ray.config import EvaluateSettings, ExportSettings, PackSettings, Settings, TrainSettings
from nucseg_ray.config_predict import PredictSettings
from nucseg_ray.config_synthesize import SynthesizeSettings
from nucseg_ray.errors import NucsegError
from nucseg_ray.flags import summary
from nucseg_ray.submitted import refuse_vanishing_output, with_hint

OK, WRONG_INPUT, TOO_MANY_FAILED, INTERRUPTED = 0, 2, 3, 130
SettingsT = TypeVar("SettingsT", bound=Settings)


@dataclass(frozen=True, slots=True)
class Command(Generic[SettingsT]):
    """A command. Calling it with its flags runs it and gives the exit code."""

    name: str
    settings: type[SettingsT]
    work: Callable[[SettingsT], int]
    on_ray: bool = True
    when_interrupted: str = "give the same command again"

    def __call__(self, argv: Sequence[str], *, prog: str | None = None) -> int:
        """Run with these flags; ``prog`` is how messages and ``--help`` call the command."""
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
        try:
            settings = parse(self.settings, argv, prog=prog or f"python jobs/{self.name}.py")
            refuse_vanishing_output(settings)
            _quieten()
            with _session() if self.on_ray and not getattr(settings, "dry_run", False) else nullcontext():
                return self.work(settings)
        except NucsegError as error:
            return _wrong(str(error))
        except KeyboardInterrupt:
            print(f"interrupted; {self.when_interrupted}", file=sys.stderr)  # noqa: T201
            return INTERRUPTED


def _train(settings: TrainSettings) -> int:
    from nucseg_ray.pipelines.training import run_train

    run_train(settings)
    return OK


def _predict(settings: PredictSettings) -> int:
    if settings.dry_run:
        from nucseg_ray.pipelines.run_plan import dry_run

        for line in dry_run(settings):
            print(line)  # noqa: T201
        return OK
    from nucseg_ray.pipelines.inference import run_predict

    account = run_predict(settings)
    print(account)  # noqa: T201
    return OK if account.is_within(settings.max_failed) else TOO_MANY_FAILED


def _evaluate(settings: EvaluateSettings) -> int:
    from nucseg_ray.pipelines.evaluation import run_evaluate

    run_evaluate(settings)
    return OK


def _synthesize(settings: SynthesizeSettings) -> int:
    from nucseg_ray.pipelines.synthesis import run_synthesize

    print(run_synthesize(settings))  # noqa: T201
    return OK


def _pack(settings: PackSettings) -> int:
    from nucseg_ray.pipelines.packing import run_pack

    print(run_pack(settings))  # noqa: T201
    return OK


def _export(settings: ExportSettings) -> int:
    from nucseg_ray.pipelines.export import run_export

    print(run_export(settings))  # noqa: T201
    return OK


train = Command(
    "train",
    TrainSettings,
    _train,
    when_interrupted="after a finished epoch, the same command with --resume goes on from there",
)
predict = Command(
    "predict", PredictSettings, _predict, when_interrupted="what is done stays done, the same command goes on"
)
evaluate = Command("evaluate", EvaluateSettings, _evaluate)
synthesize = Command("synthesize", SynthesizeSettings, _synthesize)
pack = Command("pack", PackSettings, _pack)
export = Command("export", ExportSettings, _export, on_ray=False)
COMMANDS = {command.name: command for command in (train, predict, evaluate, synthesize, pack, export)}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``nucseg COMMAND ...``; without a command, list them."""
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in COMMANDS:
        return COMMANDS[name](rest, prog=f"nucseg {name}")
    if name in ("-h", "--help"):
        print(_overview())  # noqa: T201
    elif name == "--version":
        print(f"nucseg {__version__}")  # noqa: T201
    else:
        return _wrong(f"{name!r} is not a command of nucseg{did_you_mean(name, [*COMMANDS, '--help', '--version'])}")
    return OK


def _overview() -> str:
    width = max(map(len, COMMANDS)) + 2
    return "\n".join(
        [
            "usage: nucseg COMMAND [flags]",
            "",
            PACKAGE_SUMMARY.splitlines()[0],
            "",
            *(f"  {name:{width}}{summary(command.settings)}" for name, command in COMMANDS.items()),
            "",
            "nucseg COMMAND --help shows the flags of a command; nucseg --version the version.",
        ]
    )


def _wrong(message: str) -> int:
    print(f"error: {with_hint(' '.join(message.split()))}", file=sys.stderr)  # noqa: T201
    return WRONG_INPUT


def _quieten() -> None:
    # Ray will stop hiding GPUs from tasks that ask for none, and warns until told that we know.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # Ray's C++ side warns of things that its own datasets do; what matters comes as an exception.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    # What these tell at INFO is of their own inside.
    for library in ("absl", "tensorflow", "tf2onnx"):
        logging.getLogger(library).setLevel(logging.WARNING)


@contextmanager
def _session() -> Iterator[None]:
    from nucseg_ray.pipelines.session import connected

    with connected():
        yield
