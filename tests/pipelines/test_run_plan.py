"""What a run is to do, told before it: without Ray, without a model, and with nothing written."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile

from nucseg_ray import commands
from nucseg_ray.config_predict import PredictSettings
from nucseg_ray.errors import UsageError
from nucseg_ray.imaging.codecs import encode_image_png
from nucseg_ray.pipelines.run_plan import plan_run
from nucseg_ray.plates.schemes import SCHEMES
from nucseg_ray.storage import settling


@pytest.fixture
def plates(tmp_path: Path) -> Path:
    """Folder with two plates of three wells in two channels; the files hold nothing."""
    folder = tmp_path / "in"
    for plate in ("P1", "P2"):
        (folder / plate).mkdir(parents=True)
        for number, channel in ((n, c) for n in (1, 2, 3) for c in ("DNA", "GFP")):
            (folder / plate / f"{channel}-{number:02d}-A-{number:02d}.tif").touch()
    return folder


def run(plates: Path, *flags: str) -> int:
    return commands.predict(["--input", str(plates), "--output", str(plates.parent / "out"), "--dry-run", *flags])


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "_session", lambda: pytest.fail("a dry run needs no Ray"))


def test_a_dry_run_tells_and_changes_nothing(plates: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in plates.parent.rglob("*")}
    assert run(plates, "--channel", "dna", "--wells", "A02-A03", "--limit", "3", "--model", "nowhere") == 0
    assert capsys.readouterr().out.splitlines() == [
        f"input: {plates} (12 files)",
        f"scheme: bbbc ({SCHEMES['bbbc'].instrument}); 12 images, such as P1/DNA-01-A-01.tif",
        "plates: 2; sites: 6",
        "  P1: wells: A01, A02, A03; sites: 1",
        "  P2: wells: A01, A02, A03; sites: 1",
        "channels: DNA, GFP",
        "to segment: 3 sites in channel DNA (--wells A02-A03, --limit 3; the listing has 6)",
        "  first: P1/A02/1 from P1/DNA-02-A-02.tif",
        "  last: P2/A02/1 from P2/DNA-02-A-02.tif",
        "  it cannot be read: P1/DNA-02-A-02.tif: the file is empty; expected a PNG, TIFF or JPEG image",
    ]
    assert {path: path.stat().st_mtime_ns for path in plates.parent.rglob("*")} == before


def test_a_dry_run_looks_into_the_first_site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    metadata = {"axes": "CZYX", "Channel": {"Name": ["GFP", "DNA"]}, "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    pixels = np.zeros((2, 3, 20, 30), np.uint16)
    tifffile.imwrite(folder / "a.ome.tif", pixels, ome=True, photometric="minisblack", metadata=metadata)
    (folder / "b.png").write_bytes(encode_image_png(np.zeros((5, 5), np.uint8)))
    assert run(folder, "--channel", "dna", "--z", "2") == 0
    assert capsys.readouterr().out.splitlines()[-5:] == [
        "to segment: 2 sites in channel dna",
        "  first: in/a.ome from a.ome.tif",
        "  last: in/b from b.png",
        "  its first file: 2 channels (1 GFP, 2 DNA), 3 planes of each",
        "  its image: 20 x 30 px uint16, pixels of 0.5 um",
    ]
    for flags, told in (
        ((), "a.ome.tif: expected one channel, found 2 channels (1 GFP, 2 DNA); choose one by --channel"),
        (("--channel", "2", "--z", "4"), "a.ome.tif: --z 4: expected such a plane, found planes 1 to 3"),
    ):
        assert run(folder, *flags) == 2
        ended = capsys.readouterr()
        assert "  its first file: 2 channels" in ended.out and f"error: {told}" in ended.err


def test_pages_of_which_nothing_is_said_ask_for_a_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 9, (3, 20, 30), np.uint16)
    tifffile.imwrite(folder / "a.tif", pixels, photometric="minisblack", metadata=None)
    assert run(folder) == 2
    assert "a.tif: expected one image, or pages of which the file says what they are, found 3 pages of" in (
        capsys.readouterr().err
    )
    for flags, told in (
        (("--z", "max"), "one channel, 3 planes"),
        (("--channel", "3"), "3 channels (1, 2, 3), one plane of each"),
        (("--channel", "1", "--z", "2"), "one channel, 3 planes"),
    ):
        assert run(folder, *flags) == 0
        assert f"  its first file: {told}" in capsys.readouterr().out


def test_time_points_inside_a_file_ask_for_a_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    pixels = np.zeros((4, 20, 30), np.uint16)
    tifffile.imwrite(folder / "a.ome.tif", pixels, ome=True, photometric="minisblack", metadata={"axes": "TYX"})
    assert run(folder) == 2
    assert (
        "a.ome.tif: expected one time point, found 4; --timepoints 1-4 takes each as a site" in capsys.readouterr().err
    )
    assert run(folder, "--timepoints", "1-4") == 0
    told = capsys.readouterr().out.splitlines()
    assert told[-5:-1] == [
        "to segment: 4 sites (--timepoints 1-4; the listing has 4)",
        "  first: in/a.ome_t1 from a.ome.tif",
        "  last: in/a.ome_t4 from a.ome.tif",
        "  its first file: one channel, one plane, at 4 time points",
    ]


def test_what_a_run_would_refuse_is_told_after_what_was_understood(
    plates: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(plates) == 2
    ended = capsys.readouterr()
    assert ended.out.splitlines()[-1] == "channels: DNA, GFP"
    assert ended.err == (
        "error: in: found the channels DNA, GFP; expected to be told which one holds the nuclei. Choose it by "
        "--channel.\n"
    )
    assert run(plates, "--channel", "DNA", "--scheme", "regex:(?P<row>x)") == 2
    assert "is missing the group 'column'" in capsys.readouterr().err


def test_an_illumination_that_is_not_there_is_told_before_anything_runs(
    plates: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(plates, "--channel", "DNA", "--illumination", "estimat") == 2
    assert capsys.readouterr().err == (
        "error: --illumination estimat: found nothing there (did you mean 'estimate'?): expected none, estimate, an "
        "illumination function (TIFF, .npy), or a folder such as OUT/illumination. Correct it.\n"
    )
    lights = plates.parent / "lights"
    (lights / "plate=P1").mkdir(parents=True)
    for name in ("DNA.tif", "GFP.tif"):
        (lights / "plate=P1" / name).touch()
    for flags in (("--illumination", lights), ("--illumination", lights / "plate=P1" / "DNA.tif")):
        assert run(plates, "--channel", "DNA", "--wells", "A01", *map(str, flags)) == (2 if flags[1] == lights else 0)
    assert f"has no function for plate P2: expected {lights}/plate=P2/DNA.tif." in capsys.readouterr().err


def test_sites_that_are_still_being_written_are_told_and_left(
    plates: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time() + 86400  # the files are a day old
    monkeypatch.setattr(settling, "time", SimpleNamespace(time=lambda: now, sleep=lambda seconds: None))
    os.utime(plates / "P2" / "GFP-02-A-02.tif", (now - 20,) * 2)

    def planned(settle_s: float | None) -> list[str]:
        caplog.clear()
        settings = PredictSettings(input=str(plates), output="out", channel="DNA", settle_s=settle_s)
        with caplog.at_level(logging.INFO):
            return plan_run(settings).manifest.column("plate").to_pylist()

    assert planned(30) == ["P1"] * 3 + ["P2"] * 2
    assert caplog.messages[1:] == [
        "1 sites are left for the next run (such as P2/A02/1): they have files that changed within 30 s, or less than "
        "others of their plate; --settle-s 0 takes all as they are"
    ]
    for settle_s in (0, 10, None):
        assert planned(settle_s) == ["P1"] * 3 + ["P2"] * 3
        assert caplog.messages[1:] == []
    assert planned(86400 * 2) == []  # nothing to do yet is no error
    with pytest.raises(UsageError, match="--channel 'X' is not in in"):
        plan_run(PredictSettings(input=str(plates), output="out", channel="X"))


def test_a_short_stack_is_told_of_or_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time() + 86400
    monkeypatch.setattr(settling, "time", SimpleNamespace(time=lambda: now, sleep=lambda seconds: None))
    for name in ("ZStep_1/P_A01_s1_w1.tif", "ZStep_2/P_A01_s1_w1.tif", "ZStep_1/P_A01_s2_w1.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    settings = PredictSettings(input=str(tmp_path), output="out", settle_s=0)
    assert plan_run(settings).manifest.num_rows == 2
    (told,) = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert told.startswith(f"1 sites have fewer planes than others of their plate (such as {tmp_path.name}/A01/2), and")
    planned = plan_run(settings.model_copy(update={"settle_s": 60}))
    assert (planned.manifest.num_rows, [key.site for key in planned.held_back]) == (1, ["2"])
