"""``jobs/predict.py`` where TensorFlow cannot be imported: no process of a run on CPUs may need it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def without_tensorflow(tmp_path: Path) -> dict[str, str]:
    """An environment, inherited by every process of a run, in which importing TensorFlow leaves a mark and fails."""
    for name in ("tensorflow", "tf_keras", "keras"):
        (tmp_path / "poison" / name).mkdir(parents=True)
        (tmp_path / "poison" / name / "__init__.py").write_text(
            f"open({str(tmp_path / 'imported')!r}, 'a').write('{name}\\n')\nraise ImportError('{name} is poisoned')\n"
        )
    return {**os.environ, "PYTHONPATH": str(tmp_path / "poison"), "RAY_ADDRESS": "local"}


def _predict(plate: Path, model: Path, out: Path, env: dict[str, str], *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "jobs/predict.py"), "--input", str(plate / "P1"), "--model", str(model)]
    return subprocess.run(
        [*command, "--output", str(out), *flags], env=env, capture_output=True, text=True, check=False, timeout=300
    )


def test_a_plate_is_segmented_without_tensorflow(
    tiny_model: Path, plate: Path, tmp_path: Path, without_tensorflow: dict[str, str]
) -> None:
    run = _predict(plate, tiny_model, tmp_path / "out", without_tensorflow, "--runtime", "openvino")
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "24 sites = 22 segmented + 2 empty + 0 failed (of these, done before: 0)"
    assert not (tmp_path / "imported").exists()


def test_the_poison_reaches_the_actors(
    tiny_model: Path, plate: Path, tmp_path: Path, without_tensorflow: dict[str, str]
) -> None:
    """Else the test above would pass whatever the actors import."""
    run = _predict(plate, tiny_model, tmp_path / "out", without_tensorflow, "--runtime", "tensorflow")
    assert run.returncode != 0
    assert "tensorflow" in (tmp_path / "imported").read_text()
