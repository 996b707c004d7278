"""What an output remembers of how it was made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nucseg_ray.errors import OutputMismatchError
from nucseg_ray.pipelines.run_record import check_output, claim_output
from nucseg_ray.storage.locations import Location


def test_the_output_of_another_version_is_refused_as_such(tmp_path: Path) -> None:
    out = Location(str(tmp_path))
    claim_output(out, {"tile_px": 64}, settings={})
    assert check_output(out, {"tile_px": 64})
    record = json.loads((tmp_path / "run.json").read_text())
    record["made_with"]["format"] = 1
    (tmp_path / "run.json").write_text(json.dumps(record))
    with pytest.raises(OutputMismatchError, match=r"was made by another version of nucseg_ray \(format 1, this one's"):
        check_output(out, {"tile_px": 64})
