"""What `--wells`, `--sites` and `--limit` choose, against a plain loop over the plate."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucseg_ray.errors import UsageError
from nucseg_ray.plates.keys import SiteKey, Well
from nucseg_ray.plates.planning import Choice, choose
from nucseg_ray.plates.selection import Selection
from nucseg_ray.plates.understanding import Understood, understand

PLATES = ("P1", "P2")
WELLS = [Well(row, column).name for row in range(8) for column in range(1, 13)]
KEYS = [SiteKey(plate, well, str(site)) for plate in PLATES for well in WELLS for site in range(1, 4)]


def chosen(wells: str | None, sites: str | None = None, keys: list[SiteKey] = KEYS) -> list[SiteKey]:
    flags = Selection.parse(wells, sites).chosen(keys, "root")
    return [key for key, flag in zip(keys, flags, strict=True) if flag]


@pytest.mark.parametrize(
    ("text", "wells"),
    [
        ("A1", {"A01"}),
        ("a01, H12", {"A01", "H12"}),
        ("B02-D04", {f"{row}{column:02d}" for row in "BCD" for column in (2, 3, 4)}),
        ("D04-B02", {f"{row}{column:02d}" for row in "BCD" for column in (2, 3, 4)}),
        ("B04-D02,B03", {f"{row}{column:02d}" for row in "BCD" for column in (2, 3, 4)}),
        ("A11-B48", {"A11", "A12", "B11", "B12"}),
    ],
)
def test_wells_are_chosen_on_every_plate(text: str, wells: set[str]) -> None:
    assert chosen(text) == [key for key in KEYS if key.well in wells]
    assert chosen(text, "2-3,2") == [key for key in KEYS if key.well in wells and key.site in ("2", "3")]


@settings(deadline=None)
@given(st.builds(Well, st.integers(0, 7), st.integers(1, 12)), st.builds(Well, st.integers(0, 7), st.integers(1, 12)))
def test_a_range_is_a_rectangle_whatever_its_corners(one: Well, other: Well) -> None:
    expected = {
        well
        for well in WELLS
        if min(one.row, other.row) <= Well.parse(well).row <= max(one.row, other.row)
        and min(one.column, other.column) <= Well.parse(well).column <= max(one.column, other.column)
    }
    assert {key.well for key in chosen(f"{one.name}-{other.name}")} == expected


def test_each_well_is_looked_at_once() -> None:
    keys = [
        SiteKey("P", Well(row, column).name, str(n)) for row in range(8) for column in range(1, 26) for n in range(50)
    ]
    text = ",".join(dict.fromkeys(key.well for key in keys))
    begun = time.process_time()
    assert chosen(text, keys=keys) == keys
    assert time.process_time() - begun < 0.5  # 0.03 s; by sites it took 1.9


def test_time_points_of_names_are_chosen() -> None:
    keys = [SiteKey("P", "A01", site, time) for site in ("1", "2") for time in ("1", "2", "10")]
    flags = Selection.parse(None, "2", "2-10").chosen(keys, "root")
    assert [key.timepoint for key, flag in zip(keys, flags, strict=True) if flag] == ["2", "10"]
    with pytest.raises(UsageError, match=r"^--timepoints 3: root has none of these; found 3 timepoints"):
        Selection.parse(None, None, "3").chosen(keys, "root")


@pytest.mark.parametrize("text", ["0-3", "first", "1,x"])
def test_time_points_inside_files_are_numbers(text: str) -> None:
    with pytest.raises(
        UsageError, match="^--timepoints .*: the file names tell of no time points, so these are numbers"
    ):
        choose(understand(["a.tif"], root_name="P"), Choice(timepoints=text))


def test_wells_that_are_only_counted_and_sites_with_names() -> None:
    keys = [SiteKey("P", f"W{number:04d}", site) for number in (1, 9, 10, 96) for site in ("1", "10", "top left")]
    assert {key.well for key in chosen("W0009-W0010", keys=keys)} == {"W0009", "W0010"}
    assert {key.well for key in chosen("96,1", keys=keys)} == {"W0001", "W0096"}
    assert {key.site for key in chosen(None, "top left", keys=keys)} == {"top left"}
    assert {key.site for key in chosen(None, "2-10", keys=keys)} == {"10"}
    assert chosen("W01", keys=[*keys, SiteKey("P", "W01", "1")]) == [SiteKey("P", "W01", "1")]


@pytest.mark.parametrize(
    ("wells", "sites", "told"),
    [
        ("A13", None, "--wells A13: root has none of these; found 96 wells (such as A01, A02, A03)"),
        ("A01,A13-B20", None, "--wells A13-B20: root has none of these"),
        (None, "4", "--sites 4: root has none of these; found 3 sites (such as 1, 2, 3)"),
        ("A01;A02", None, "--wells A01;A02: 'A01;A02' is not a well"),
        ("A01-3", None, "--wells A01-3: '3' is not a well"),
        ("A01-", None, "--wells A01-: '' is not a well"),
        ("A01,,A02", None, "--wells 'A01,,A02': expected names with commas between them, found an empty one"),
        ("", None, "--wells '': expected names"),
        (None, "1, ", "--sites '1, ': expected names"),
    ],
)
def test_what_is_not_there_is_refused(wells: str | None, sites: str | None, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        chosen(wells, sites)
    assert str(caught.value).startswith(told)


def test_wells_and_sites_without_a_site_in_common_are_refused() -> None:
    keys = [SiteKey("P", "A01", "1"), SiteKey("P", "A02", "2")]
    with pytest.raises(UsageError, match="no site of root is in all that are given"):
        chosen("A01", "2", keys=keys)


def plate() -> Understood:
    names = [f"P_{well}_s{site}_w{w}.TIF" for well in ("B01", "A02", "A10") for site in (10, 2) for w in (1, 2)]
    return understand([*(f"P1/{name}" for name in names), *(f"P2/{name}" for name in names[:-1])], root_name="in")


def sites_of(choice: Choice) -> list[str]:
    rows = choose(plate(), choice).manifest.to_pylist()
    return ["/".join([row["plate"], row["well"], row["site"]]) for row in rows]


def test_limit_takes_the_first_sites_in_the_order_of_the_manifest() -> None:
    every = sites_of(Choice(channel="w1"))
    assert every[:4] == ["P1/A02/2", "P1/A02/10", "P1/A10/2", "P1/A10/10"]
    for limit in range(1, 14):
        assert sites_of(Choice(channel="w1", limit=limit)) == every[:limit]
    chosen_first = ["P1/A02/2", "P1/A10/2", "P1/B01/2"]
    assert sites_of(Choice(channel="w1", wells="A10-B01,A10", sites="2", limit=3)) == chosen_first


def test_what_is_not_asked_for_does_not_stop_a_run() -> None:
    with pytest.raises(Exception, match=r"1 of 12 sites have no file of channel 'w2' \(such as P2/A10/2\)"):
        sites_of(Choice(channel="w2"))
    assert sites_of(Choice(channel="w2", wells="A02")) == ["P1/A02/2", "P1/A02/10", "P2/A02/2", "P2/A02/10"]
    planned = choose(plate(), Choice(channel="w2", wells="A02"))
    # A plate is judged by all that can be read, whatever was asked for.
    assert planned.whole.num_rows == 11
    assert choose(plate(), Choice(channel="w1", limit=1)).whole.equals(choose(plate(), Choice(channel="w1")).manifest)
