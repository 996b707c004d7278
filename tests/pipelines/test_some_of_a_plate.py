"""Runs over some of a plate, one after another into one output, are together what one run over all of it would be."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from nucseg_ray.config_predict import PredictSettings
from nucseg_ray.imaging.codecs import decode_label_png
from nucseg_ray.pipelines.account import Account
from nucseg_ray.pipelines.inference import run_predict
from nucseg_ray.pipelines.run_plan import plan_run
from nucseg_ray.pipelines.run_record import record_manifest
from nucseg_ray.storage import settling
from nucseg_ray.storage.locations import Location

ROW_A, ROW_B = ([f"{row}{column:02d}" for column in range(1, 7)] for row in "AB")


def _an_hour_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what a test writes be an hour old."""
    clock = SimpleNamespace(time=lambda: time.time() + 3600, sleep=lambda seconds: None)
    monkeypatch.setattr(settling, "time", clock)


def test_wells_a_limit_and_a_plate_that_grows(
    plate: Path,
    tiny_model: Path,
    tmp_path: Path,
    segment: Callable[..., np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _an_hour_on(monkeypatch)
    folder, out = tmp_path / "P1", tmp_path / "out"

    def scan(rows: str) -> None:
        folder.mkdir(exist_ok=True)
        for row in rows:
            for image in (plate / "P1").glob(f"*-{row}-*.tif"):
                shutil.copyfile(image, folder / image.name)

    def run(**wanted: Any) -> Account:
        settings = PredictSettings(
            input=str(folder), output=str(out), model=str(tiny_model), preflight=False, settle_s=30, **wanted
        )
        return run_predict(settings)

    def recorded() -> list[str]:
        return pq.read_table(out / "manifest.parquet").column("well").to_pylist()

    scan("AB")
    (young,) = folder.glob("*-B-06.tif")
    os.utime(young, (time.time() + 3600,) * 2)
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

    os.utime(young)
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


def test_a_scan_that_paused_goes_on_with_whole_stacks(
    plate: Path,
    tiny_model: Path,
    tmp_path: Path,
    segment: Callable[..., np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _an_hour_on(monkeypatch)
    folder, out = tmp_path / "P1", tmp_path / "out"
    images = {well: next((plate / "P1").glob(f"*-A-{well[1:]}.tif")) for well in ROW_A[:4]}

    def scan(z: int, wells: list[str]) -> None:
        (folder / f"ZStep_{z}").mkdir(parents=True, exist_ok=True)
        for well in wells:
            shutil.copyfile(images[well], folder / f"ZStep_{z}" / f"P1_{well}_s1_w1.tif")

    settings = PredictSettings(input=str(folder), output=str(out), model=str(tiny_model), preflight=False, settle_s=30)
    scan(1, ROW_A[:4])
    scan(2, ROW_A[:2])
    account = run_predict(settings)
    assert (account.sites, account.done_before, account.is_balanced) == (2, 0, True)
    # As a run that took all as it was, and was killed before it did anything.
    record_manifest(Location(str(out)), plan_run(settings.model_copy(update={"settle_s": 0})).manifest, done=())
    account = run_predict(settings)
    assert (account.sites, account.done_before, account.is_balanced) == (2, 2, True)
    scan(2, ROW_A[2:4])
    account = run_predict(settings)
    assert (account.sites, account.done_before, account.is_balanced) == (4, 2, True)
    planes = pq.read_table(out / "manifest.parquet").column("planes").to_pylist()
    assert planes == [[f"ZStep_{z}/P1_{well}_s1_w1.tif" for z in (1, 2)] for well in ROW_A[:4]]
    for well, image in images.items():
        mask = decode_label_png((out / "masks" / "P1" / well / "1.png").read_bytes(), name=well)
        np.testing.assert_array_equal(mask, segment(image, out=out))
