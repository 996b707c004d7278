"""``jobs/predict.py`` killed in the middle, as by a power cut, and called again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nucseg_ray.imaging.codecs import decode_label_png
from nucseg_ray.storage.ledger import committed_stems
from nucseg_ray.storage.locations import Location
from nucseg_ray.storage.parts import read_parts

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 240.0


def _start(plate: Path, model: Path, out: Path, mark: Any) -> subprocess.Popen[bytes]:
    flags = ["--input", str(plate), "--model", str(model), "--output", str(out), "--sites-per-part", "1"]
    with (out.parent / "log.txt").open("a") as log, (out.parent / "printed.txt").open("w") as printed:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "jobs/predict.py"), *flags],
            stdout=printed,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), **mark.environment},
        )


def _parts(out: Path) -> dict[str, tuple[int, bytes]]:
    """Give the change time and bytes of the tables of every committed part."""
    stems = {path.stem for path in (out / "sites").rglob("*.parquet")}
    paths = [path for name in ("sites", "nuclei") for path in (out / name).rglob("*.parquet") if path.stem in stems]
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}


@pytest.mark.slow
def test_a_killed_run_is_finished_by_the_same_command(
    plate: Path, tiny_model: Path, tmp_path: Path, segment: Callable[..., np.ndarray], mark: Any, until: Any
) -> None:
    out = tmp_path / "out"
    victim = _start(plate / "P1", tiny_model, out, mark)
    until(lambda: victim.poll() is not None or list(out.glob("sites/*/*.parquet")), "the first part")
    victim.kill()
    assert victim.wait() == -signal.SIGKILL, (tmp_path / "log.txt").read_text()
    assert (out / "lease.json").exists()
    # Ray's processes follow their driver by themselves: no one has to clean up after a kill.
    until(lambda: not mark.processes(), "the processes of the killed run")
    before = _parts(out)
    n_done = sum(path.startswith(str(out / "sites")) for path in before)
    assert 0 < n_done < 24

    successor = _start(plate / "P1", tiny_model, out, mark)
    assert successor.wait(DEADLINE_S) == 0, (tmp_path / "log.txt").read_text()
    account = f"24 sites = 22 segmented + 2 empty + 0 failed (of these, done before: {n_done})"
    assert (tmp_path / "printed.txt").read_text().splitlines() == [account]
    after = _parts(out)
    assert {path: after.get(path) for path in before} == before
    location = Location(str(out))
    wells = read_parts(location, "sites", committed_stems(location)).column("Metadata_Well").to_pylist()
    assert sorted(wells) == [f"{row}{column:02d}" for row in "ABCD" for column in range(1, 7)]
    nuclei = read_parts(location, "nuclei", committed_stems(location)).column("Metadata_Well").to_pylist()
    masks = sorted((out / "masks").rglob("*.png"))
    assert len(masks) == 24
    for path in masks:
        well = path.parent.name
        (image,) = (plate / "P1").glob(f"*-{well[0]}-{well[1:]}.tif")
        labels = decode_label_png(path.read_bytes(), name=well)
        np.testing.assert_array_equal(labels, segment(image, out=out))
        assert nuclei.count(well) == labels.max()
    assert not (out / "lease.json").exists()
    assert not list(out.rglob(".tmp-*"))
