"""The exports under the real data folder, with numbers counted by hand from their listings."""

from __future__ import annotations

from pathlib import Path

import pytest

from nucseg_ray.errors import NamingError
from nucseg_ray.plates.planning import Choice, Plan, choose
from nucseg_ray.plates.understanding import understand


def planned(folder: Path, channel: str, **settings: str) -> Plan:
    paths = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return choose(understand(paths, root_name=folder.name), Choice(channel=channel, **settings))


def column(plan: Plan, name: str) -> list:
    return plan.manifest[name].to_pylist()


def test_sbs_plate(realdata: Path) -> None:
    found = planned(realdata / "plates" / "sbs_bbbc013", "Channel2")
    assert (found.scheme, found.channels, found.unmatched) == ("bbbc", ("Channel1", "Channel2"), ())
    assert column(found, "well") == [f"{row}{number:02d}" for row in "ABCDEFGH" for number in range(1, 13)]
    assert set(column(found, "plate")) == {"sbs_bbbc013"}
    assert set(column(found, "site")) == {"1"}
    assert set(column(found, "timepoint")) == {None}
    assert column(found, "planes")[0] == ["Channel2-01-A-01.tif"]
    assert column(found, "planes")[-1] == ["Channel2-96-H-12.tif"]


@pytest.mark.parametrize(
    ("z", "folder"),
    [("max", "ZStep_1 ZStep_2"), ("projection", "ZStep_0"), ("1", "ZStep_1"), ("2", "ZStep_2")],
)
def test_imagexpress_with_plane_folders(realdata: Path, z: str, folder: str) -> None:
    found = planned(realdata / "plates" / "imagexpress" / "9987_Plate_3434", "w1", z=z)
    assert (found.scheme, found.channels, found.unmatched) == ("imagexpress", ("w1", "w2", "w3"), ())
    assert [tuple(row.values()) for row in found.manifest.to_pylist()] == [
        (
            *("9987_Plate_3434", well, site, "1", "w1"),
            [f"TimePoint_1/{step}/9987_{well}_s{site}_w1.TIF" for step in folder.split()],
        )
        for well in ("B02", "B03")
        for site in ("1", "2")
    ]


def test_imagexpress_projection_is_no_less_than_its_planes(realdata: Path) -> None:
    """Why ZStep_0 is taken for the projection."""
    tifffile = pytest.importorskip("tifffile")
    folder = realdata / "plates" / "imagexpress" / "9987_Plate_3434" / "TimePoint_1"
    projection, *planes = (tifffile.imread(folder / f"ZStep_{z}" / "9987_B02_s1_w1.TIF") for z in (0, 1, 2))
    assert all((projection >= plane).all() for plane in planes)
    assert not (planes[1] >= planes[0]).all()


def test_imagexpress_with_time_points(realdata: Path) -> None:
    found = planned(realdata / "plates" / "imagexpress" / "9987_Plate_3435", "w2")
    assert (found.channels, found.unmatched) == (("w1", "w2"), ())
    assert [tuple(row.values()) for row in found.manifest.to_pylist()] == [
        ("9987_Plate_3435", well, site, time, "w2", [f"TimePoint_{time}/9987_{well}_s{site}_w2.TIF"])
        for well in ("B02", "B03")
        for site in ("1", "2")
        for time in ("1", "2")
    ]


@pytest.mark.parametrize(
    ("channel", "z", "folders"),
    [
        ("w1", "max", ["ZStep_1/", "ZStep_2/", "ZStep_3/"]),
        ("w1", "projection", [""]),
        ("w3", "max", [""]),
        ("w4", "max", ["ZStep_1/"]),
        ("w1", "3", ["ZStep_3/"]),
        ("w4", "1", ["ZStep_1/"]),
    ],
)
def test_imagexpress_with_projections_beside_planes(realdata: Path, channel: str, z: str, folders: list[str]) -> None:
    found = planned(realdata / "plates" / "imagexpress" / "Projection-Mix", channel, z=z)
    assert (found.scheme, found.channels, found.unmatched) == ("imagexpress", ("w1", "w2", "w3", "w4"), ())
    keys = list(zip(*(column(found, name) for name in ("plate", "well", "site", "timepoint")), strict=True))
    assert keys == [("Projection-Mix", well, site, None) for well in ("E07", "E08") for site in ("1", "2")]
    for (_, well, site, _), planes in zip(keys, column(found, "planes"), strict=True):
        for path, folder in zip(planes, folders, strict=True):
            assert path.startswith(f"2023-02-21/1334/{folder}Projection-Mix_{well}_s{site}_{channel}")
            assert len(path.rpartition("/")[2]) == len(f"Projection-Mix_{well}_s{site}_{channel}") + 36 + len(".tif")


def test_three_imagexpress_plates_at_once(realdata: Path) -> None:
    folder = realdata / "plates" / "imagexpress"
    found = planned(folder, "w1")
    assert found.channels == ("w1", "w2", "w3", "w4")
    assert column(found, "plate") == ["9987_Plate_3434"] * 4 + ["9987_Plate_3435"] * 8 + ["Projection-Mix"] * 4
    assert column(found, "timepoint") == ["1"] * 4 + ["1", "2"] * 4 + [None] * 4
    with pytest.raises(NamingError, match=r"8 of 16 sites have no file of channel 'w3'.*every site has \(w1, w2\)"):
        planned(folder, "w3")


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("channel", ["C01", "C02"])
def test_cellvoyager(realdata: Path, level: int, channel: str) -> None:
    """The plate has one name, from whichever folder above its files one starts."""
    plate = "CV8000-Minimal-DataSet-2C-3W-4S-FP2-stack"
    levels = [f"{plate}_20230918_135839", plate]
    prefix = "/".join([*levels[level:], plate])
    found = planned((realdata / "plates" / "cellvoyager").joinpath(*levels[:level]), channel)
    assert (found.scheme, found.channels) == ("cellvoyager", ("C01", "C02"))
    action = channel[1:]
    assert [tuple(row.values()) for row in found.manifest.to_pylist()] == [
        (
            *(plate, well, site, "1", channel),
            [f"{prefix}_{well}_T0001F00{site}L01A{action}Z0{z}{channel}.tif" for z in (1, 2, 3, 4)],
        )
        for well in ("D08", "E03", "F08")
        for site in ("1", "2", "3", "4")
    ]
    assert [path.rpartition("/")[2] for path in found.unmatched] == [
        "DC_DCAM#1_CAM3.tif",
        "DC_DCAM#2_CAM4.tif",
        "SC_BP445-45_20x v2_M01_CH01.tif",
        "SC_BP525-50_20x v2_M01_CH02.tif",
        "SC_BP600-37_20x v2_M01_CH03.tif",
        "SC_BP676-29_20x v2_M01_CH04.tif",
    ]


def test_operetta(realdata: Path) -> None:
    found = planned(realdata / "plates" / "operetta", "ch5")
    assert (found.scheme, found.unmatched) == ("operetta", ())
    assert found.channels == ("ch1", "ch2", "ch3", "ch4", "ch5", "ch6")
    assert [tuple(row.values()) for row in found.manifest.to_pylist()] == [
        ("operetta", "C03", "3", "1", "ch5", ["r03c03f03p01-ch5sk1fk1fl1.tiff"])
    ]


def test_all_real_plates_at_once_are_refused(realdata: Path) -> None:
    with pytest.raises(NamingError, match=r"192 images in 'bbbc'.*92 images in 'imagexpress'.*96 .*6 .*--scheme bbbc"):
        planned(realdata / "plates", "w1")
