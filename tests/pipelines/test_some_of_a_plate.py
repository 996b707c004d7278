"""Runs over some of a plate, one after another into one output, are together what one run over all of it would be."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from nucseg_ray.config_predict import PredictSettings
from nucseg_ray.imaging.codecs import decode_label_png
from nucseg_ray.pipelines.account import Account
from nucseg_ray.pipelines.inference import run_predict
from nucseg_ray.storage import settling

ROW_A, ROW_B = ([f"{row}{column:02d}" for column in range(1, 7)] for row in "AB")


def test_wells_a_limit_and_a_plate_that_grows(
    plate: Path,
    tiny_model: Path,
    tmp_path: Path,
    segment: Callable[..., np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(settling, "BETWEEN_LOOKS_S", 0.0)
    folder, out = tmp_path / "P1", tmp_path / "out"

    def scan(rows: str) -> None:
        folder.mkdir(exist_ok=True)
        for row in rows:
            for image in (plate / "P1").glob(f"*-{row}-*.tif"):
                shutil.copyfile(image, folder / image.name)
                os.utime(folder / image.name, (time.time() - 3600,) * 2)

    def run(**wanted: Any) -> Account:
        settings = PredictSettings(
            input=str(folder), output=str(out), model=str(tiny_model), preflight=False, settle_s=30, **wanted
        )
        return run_predict(settings)

    def recorded() -> list[str]:
        return pq.read_table(out / "manifest.parquet").column("well").to_pylist()

    scan("AB")
    (young,) = folder.glob("*-B-06.tif")
    os.utime(young)
    account = run(limit=2)
    assert (account.sites, account.done_before, account.is_balanced) == (2, 0, True)
    assert recorded() == ROW_A[:2]
    # Not of the two sites that were asked for: these alone would have told nothing of the plate.
    diameters = json.loads((out / "diameters.json").read_text())
    assert diameters["P1"] is not None
    account = run(wells="B01-A02")
    assert (account.sites, account.done_before, account.is_balanced) == (4, 2, True)
    assert recorded() == [*ROW_A[:2], *ROW_B[:2]]
    account = run()
    assert (account.sites, account.done_before, account.is_balanced) == (11, 4, True)
    assert recorded() == [*ROW_A[:2], *ROW_B[:2], *ROW_A[2:], *ROW_B[2:5]]
    assert not (out / "masks" / "P1" / "B06").exists()

    os.utime(young, (time.time() - 60,) * 2)
    scan("C")
    account = run()
    assert (account.sites, account.done_before, account.is_balanced) == (18, 11, True)
    assert json.loads((out / "diameters.json").read_text()) == diameters
    images = sorted(folder.glob("*.tif"))
    assert len(images) == 18
    for image in images:
        well = "".join(image.stem.split("-")[2:])
        mask = out / "masks" / "P1" / well / "1.png"
        np.testing.assert_array_equal(decode_label_png(mask.read_bytes(), name=well), segment(image, out=out))
    # A run for some sites accounts for these, whatever else was done.
    assert str(run(wells="A01-A03", limit=2)).startswith("2 sites = ")
