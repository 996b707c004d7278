"""The job scripts as a person calls them: a wrong call is one plain line and code 2, before Ray starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _call(job: str, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "jobs" / job), *flags],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.parametrize(
    ("job", "flags", "told"),
    [
        ("train.py", ["--data", "d", "--output", "o", "--epoch", "3"], "did you mean --epochs?"),
        ("train.py", ["--output", "o"], "--data"),
        ("train.py", ["--data", "d", "--output", "o", "--epochs", "none"], "--epochs: "),
        ("predict.py", ["--input", "i", "--output", "o", "--model", "m", "--mask", "png"], "did you mean --masks?"),
        ("predict.py", ["--input", "i", "--output", "o", "--model", "m", "--masks", "gif"], "found 'gif'"),
        ("predict.py", ["--input", "i", "--output", "o", "--model", "m", "--max-failed", "few"], "found 'few'"),
        ("evaluate.py", ["--output", "o", "--trutj", "t"], "did you mean --truth?"),
        ("synthesize.py", ["--output", "o", "--sede", "1"], "did you mean --seed?"),
    ],
)
def test_a_wrong_call_is_one_line(job: str, flags: list[str], told: str) -> None:
    ended = _call(job, *flags)
    assert (ended.returncode, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: ") and told in line


@pytest.mark.parametrize("job", ["train.py", "predict.py", "evaluate.py", "synthesize.py", "pack.py", "export.py"])
def test_help_names_every_flag(job: str) -> None:
    ended = _call(job, "--help")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith(f"usage: python jobs/{job} ")
    assert "--output" in ended.stdout
