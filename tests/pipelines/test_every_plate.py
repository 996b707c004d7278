"""Plates of every scheme, drawn and real, from their names to their masks."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nucseg_ray import commands
from nucseg_ray.config_predict import PredictSettings
from nucseg_ray.config_synthesize import SynthesizeSettings
from nucseg_ray.errors import UsageError
from nucseg_ray.imaging.codecs import decode_image, decode_label_png
from nucseg_ray.imaging.metrics import match, pool
from nucseg_ray.pipelines.inference import run_predict
from nucseg_ray.pipelines.rows import unpack
from nucseg_ray.pipelines.run_plan import plan_run, reading_of
from nucseg_ray.pipelines.sites import read_batch
from nucseg_ray.pipelines.synthesis import run_synthesize
from nucseg_ray.pipelines.synthetic_sites import draw_job, plan_plate
from nucseg_ray.plates.keys import SiteKey
from nucseg_ray.plates.schemes import SCHEMES
from nucseg_ray.storage.ledger import committed_stems
from nucseg_ray.storage.locations import Location
from nucseg_ray.storage.parts import read_parts

WRITTEN = [name for name in SCHEMES if name != "images"]
LOOK: dict[str, Any] = {"shape_px": (128, 128), "nuclei": (4, 10), "radius_px": (7.0, 11.0), "bit_depth": 8}


@pytest.mark.parametrize("scheme", WRITTEN)
def test_each_site_of_a_drawn_plate_is_read_from_its_own_file(tmp_path: Path, scheme: str) -> None:
    settings = SynthesizeSettings(
        output=str(tmp_path), kind="plate", scheme=scheme, plate="P7", wells=24, empty_wells=0, channels=2, **LOOK
    )
    drawn = {}
    for job in plan_plate(settings)[::7]:
        for path, data in draw_job(job, settings)[1]:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_bytes(data)
        drawn[job.key] = decode_image((tmp_path / job.images[0]).read_bytes(), name=job.key)
    # What instruments leave beside images.
    (tmp_path / "P7" / "P7.HTD").write_bytes(b'"HTSInfoFile", Version 1.0')
    (tmp_path / "P7" / "Thumbs.db").write_bytes(b"")
    wanted = PredictSettings(input=str(tmp_path / "P7"), output="out", channel=SCHEMES[scheme].channels[0])
    planned = plan_run(wanted)
    assert (planned.scheme, planned.unmatched) == (scheme, ())
    table = read_batch(planned.manifest, reading=reading_of(wanted, planned))
    assert table.column("error").to_pylist() == [None] * len(drawn)
    keys = zip(*(planned.manifest.column(name).to_pylist() for name in planned.manifest.column_names[:4]), strict=True)
    assert [str(SiteKey(*key)) for key in keys] == list(drawn)
    for row, pixels in enumerate(drawn.values()):
        np.testing.assert_array_equal(unpack("image", table, row), pixels)


@pytest.mark.parametrize("scheme", ["imagexpress", "cellvoyager", "cq1", "operetta", "incell", "scanr", "micromanager"])
def test_planes_and_time_points_of_a_drawn_plate_are_read_as_what_they_are(tmp_path: Path, scheme: str) -> None:
    settings = SynthesizeSettings(
        **{"output": str(tmp_path), "kind": "plate", "scheme": scheme, "plate": "P7", "wells": 24, "empty_wells": 0},
        **{"planes": 3, "timepoints": 2, "channels": 2, **LOOK},
    )
    drawn = {}
    for job in plan_plate(settings)[:6]:
        for path, data in draw_job(job, settings)[1]:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_bytes(data)
        drawn[job.key] = [decode_image((tmp_path / path).read_bytes(), name=path) for path in job.images[:3]]
    for z, expected in (("best-focus", lambda planes: planes[1]), ("max", lambda planes: np.max(planes, axis=0))):
        wanted = PredictSettings(
            input=str(tmp_path / "P7"), output="out", channel=SCHEMES[scheme].channels[0], z=z, timepoints="2"
        )
        planned = plan_run(wanted)
        assert (planned.scheme, planned.unmatched, planned.names_times) == (scheme, (), True)
        table = read_batch(planned.manifest, reading=reading_of(wanted, planned))
        keys = zip(
            *(planned.manifest.column(name).to_pylist() for name in planned.manifest.column_names[:4]), strict=True
        )
        assert [str(SiteKey(*key)) for key in keys] == [key for key in drawn if key.endswith("_t2")]
        for row, key in enumerate(key for key in drawn if key.endswith("_t2")):
            np.testing.assert_array_equal(unpack("image", table, row), expected(drawn[key]))


def test_a_scheme_without_planes_draws_none() -> None:
    with pytest.raises(UsageError, match="the 'bbbc' scheme cannot hold z=1"):
        plan_plate(SynthesizeSettings(output="o", kind="plate", planes=2))


@pytest.mark.slow
@pytest.mark.parametrize("scheme", WRITTEN)
def test_a_run_finds_the_nuclei_of_a_drawn_plate(
    tmp_path: Path, tiny_model: Path, ray_session: None, scheme: str
) -> None:
    run_synthesize(
        SynthesizeSettings(
            output=str(tmp_path), kind="plate", scheme=scheme, plate="P7", wells=24, empty_wells=2, channels=2, **LOOK
        )
    )
    out = tmp_path / "out"
    account = run_predict(
        PredictSettings(
            input=str(tmp_path / "P7"), output=str(out), model=str(tiny_model), channel=SCHEMES[scheme].channels[0]
        )
    )
    assert (account.sites, account.failed, account.is_balanced) == (24, 0, True)
    with (tmp_path / "truth.csv").open(newline="") as file:
        truths = [row["truth"] for row in csv.DictReader(file)]
    scores = pool(
        match(*(decode_label_png(path.read_bytes(), name=path.name) for path in (tmp_path / truth, masks)))
        for truth in truths
        for masks in [out / "masks" / truth.removeprefix("truth/")]
    )
    assert scores.ap[0] > 0.5


REAL = [
    ("sbs_bbbc013", ["--channel", "Channel2", "--wells", "A01-B06"], 12),
    ("imagexpress", ["--channel", "w1"], 16),
    ("imagexpress", ["--channel", "w1", "--z", "best-focus", "--limit", "6"], 6),
    ("cellvoyager", ["--channel", "C01", "--z", "mean"], 12),
    ("operetta", ["--channel", "ch5", "--nucleus-diameter-um", "10"], 1),
]


@pytest.mark.slow
@pytest.mark.parametrize(("folder", "flags", "sites"), REAL)
def test_real_plates_run_from_end_to_end(
    realdata: Path,
    tiny_model: Path,
    tmp_path: Path,
    call: Callable[..., Any],
    folder: str,
    flags: list[str],
    sites: int,
) -> None:
    plates, out = realdata / "plates" / folder, tmp_path / "out"
    if "--nucleus-diameter-um" in flags:  # these files do not say how large their pixels are
        flags = [*flags, "--pixel-size-um", "0.6"]
    ended = call(commands.predict, "--input", plates, "--output", out, "--model", tiny_model, *flags)
    location = Location(str(out))
    rows = read_parts(location, "sites", committed_stems(location)).to_pylist()
    empty = sites if folder == "cellvoyager" else sum(row["outcome"] == "empty" for row in rows)  # all of it is zero
    assert ended.printed == [
        f"{sites} sites = {sites - empty} segmented + {empty} empty + 0 failed (of these, done before: 0)"
    ]
    for row in rows:
        key = SiteKey(*(row[f"Metadata_{part}"] for part in ("Plate", "Well", "Site", "Timepoint")))
        mask = decode_label_png((out / "masks" / key.path(".png")).read_bytes(), name=str(key))
        assert (mask.shape, mask.max()) == ((row["height"], row["width"]), row["n_nuclei"])
