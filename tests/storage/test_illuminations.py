"""Illumination functions in a folder, local or in a bucket."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nucseg_ray.errors import MissingInputError
from nucseg_ray.imaging.illumination import Illumination
from nucseg_ray.storage.illuminations import Illuminations
from nucseg_ray.storage.locations import Location


@pytest.mark.parametrize("place", ["local", "s3"])
def test_functions_are_kept_by_plate_and_channel_whatever_these_are_called(
    place: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    root = str(tmp_path) if place == "local" else request.getfixturevalue("bucket")
    kept = Illuminations(Location(root) / "illumination")
    names = [("P 1", "w1"), ("P/1", "a/../b"), ("..", ""), ("é", "DAPI - DAPI")]
    for number, (plate, channel) in enumerate(names):
        assert not kept.holds(plate, channel)
        with pytest.raises(MissingInputError, match="expected a file, found none"):
            kept.of(plate, channel)
        function = np.array([[0.5 + number / 10, 1.5 - number / 10]], np.float32)
        kept.write(plate, channel, Illumination(function, float(number)), note={})
    for number, (plate, channel) in enumerate(names):
        found = Illuminations(kept.folder).of(plate, channel)
        np.testing.assert_allclose(found.function, [[0.5 + number / 10, 1.5 - number / 10]], rtol=1e-6)
        assert kept.holds(plate, channel) and found.offset == number
    assert kept.file("P/1", "").uri.endswith("/illumination/plate=P%2F1/image.tif")


def test_a_run_that_begins_afresh_reads_anew(tmp_path: Path) -> None:
    kept, anew = (Illuminations(Location(str(tmp_path)), generation) for generation in ("run-1", "run-2"))
    kept.write("P", "w1", Illumination(np.ones((2, 2), np.float32)), note={})
    assert kept.of("P", "w1").offset == 0
    kept.write("P", "w1", Illumination(np.ones((2, 2), np.float32), 7.0), note={})
    assert (kept.of("P", "w1").offset, anew.of("P", "w1").offset) == (0.0, 7.0)
