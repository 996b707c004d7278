"""The command ``nucseg`` and what it dispatches to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nucseg_ray import __version__
from nucseg_ray.commands import COMMANDS, INTERRUPTED, Command, main
from nucseg_ray.config import PackSettings
from nucseg_ray.flags import summary

ROOT = Path(__file__).resolve().parents[1]


def test_there_is_a_job_for_every_command() -> None:
    assert list(COMMANDS) == ["train", "predict", "evaluate", "synthesize", "pack", "export"]
    assert {path.stem for path in (ROOT / "jobs").glob("*.py")} == set(COMMANDS)


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_without_a_command_they_are_listed(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    lines = shown.out.splitlines()
    listed = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines if line.startswith("  ")}
    assert listed == {name: summary(command.settings) for name, command in COMMANDS.items()}
    assert all(len(line) <= 110 for line in lines)


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"nucseg {__version__}\n"


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["trian"], "error: 'trian' is not a command of nucseg; did you mean train?\n"),
        (["Predict", "--help"], "error: 'Predict' is not a command of nucseg; did you mean predict?\n"),
        (["--verison"], "error: '--verison' is not a command of nucseg; did you mean --version?\n"),
        (["qqq"], "error: 'qqq' is not a command of nucseg; see --help\n"),
        (["train", "--epoch", "3"], "error: '--epoch' is not a flag of this command; did you mean --epochs?\n"),
        (["pack", "--data", "d"], "error: --output is required; see --help\n"),
        (
            ["export", "--model", "m", "--output", "o", "--to", "tflite"],
            "error: --to: expected 'savedmodel', 'onnx' or",
        ),
    ],
)
def test_a_wrong_call_is_one_line_and_code_2(argv: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert shown.err.startswith(told)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_calls_the_command_as_it_was_called(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for called, argv in ((f"nucseg {name}", [name, "--help"]), (f"python jobs/{name}.py", None)):
        with pytest.raises(SystemExit) as ended:
            main(argv) if argv else COMMANDS[name](["--help"])
        assert ended.value.code == 0
        shown = capsys.readouterr().out
        assert shown.startswith(f"usage: {called} --")
        assert f"\n  {called} --" in shown[shown.index("\nexamples:\n") :]


def test_export_runs_without_ray() -> None:
    """With its own work in place of the export: all around it must not even load Ray."""
    code = (
        "import dataclasses, sys\n"
        "from nucseg_ray import commands\n"
        "work = lambda settings: 3 + ('ray' in sys.modules)\n"
        "sys.exit(dataclasses.replace(commands.export, work=work)(['--model', 'm', '--output', 'o']))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, "", "")


def test_an_interrupted_command_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(_: PackSettings) -> int:
        raise KeyboardInterrupt

    command = Command("pack", PackSettings, interrupt, on_ray=False, when_interrupted="do this")
    assert command(["--data", "d", "--output", "o"]) == INTERRUPTED == 130
    assert capsys.readouterr().err == "interrupted; do this\n"
    assert "--resume" in COMMANDS["train"].when_interrupted
