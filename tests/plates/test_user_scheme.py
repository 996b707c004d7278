"""A user's own regular expression as a naming scheme."""

from __future__ import annotations

import pytest

from nucseg_ray.errors import NamingError, UsageError
from nucseg_ray.plates.naming import FileName
from nucseg_ray.plates.planning import Choice, choose
from nucseg_ray.plates.understanding import understand
from nucseg_ray.plates.user_scheme import scheme_named

BBBC005 = r"regex:SIMCEPImages_(?P<well>[A-P]\d\d)_C\d+_F\d+_s(?P<site>\d+)_(?P<channel>w\d)"


@pytest.mark.parametrize(
    ("pattern", "path", "name"),
    [
        (BBBC005, "P/SIMCEPImages_A01_C1_F4_s05_w1.TIF", FileName("P", "A01", "5", None, None, "w1")),
        (BBBC005 + r"\.TIF", "SIMCEPImages_P24_C1_F4_s25_w2.TIF", FileName(None, "P24", "25", None, None, "w2")),
        (r"regex:(?P<row>\w)(?P<column>\d+)", "b3.png", FileName(None, "B03", "1", None, None, "")),
        (r"regex:(?P<row>\d)-(?P<column>\d+)", "2-3.png", FileName(None, "B03", "1", None, None, "")),
        (r"regex:(?P<well>\d+)-(?P<site>.*)", "7-top left.png", FileName(None, "W0007", "top left", None, None, "")),
        (r"regex:(?P<well>W\d+)", "W01.tif", FileName(None, "W01", "1", None, None, "")),
        (r"regex:(?P<well>W\d+)", "W001.tif", FileName(None, "W0001", "1", None, None, "")),
        (r"regex:(?i)(?P<site>x)", "X.tif", FileName(None, "", "X", None, None, "")),
        (r"regex:(?x) (?P<well>\w+) - (?P<site>\d) # s", "A01-3.tif", FileName(None, "A01", "3", None, None, "")),
        (r"regex:(?P<site>a|b)c|d", "d.tif", FileName(None, "", "1", None, None, "")),
        (
            r"regex:(?P<plate>\w+)-(?P<well>\w+)-t(?P<time>\w+)-z(?P<z>\d+)-(?P<channel>.*)",
            "any/Pl8-AA3-t007-z010-DAPI 2.ome.tif",
            FileName("Pl8", "AA03", "1", "7", 10, "DAPI 2.ome"),
        ),
        (
            r"regex:.*/(?P<plate>[^/]+)/x/(?P<well>[A-H]\d)/(?P<site>\d)",
            "batch/P1/x/C4/5.png",
            FileName("P1", "C04", "5", None, None, ""),
        ),
    ],
)
def test_names_are_read_by_the_pattern(pattern: str, path: str, name: FileName) -> None:
    assert scheme_named(pattern).parse(path) == name
    assert scheme_named(pattern).plate_folder(path) == (name.plate or "")


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        (BBBC005, "xSIMCEPImages_A01_C1_F4_s05_w1.TIF"),
        (BBBC005, "SIMCEPImages_A01_C1_F4_s05_w1.csv"),
        (r"regex:(?P<well>[A-Z]\d+)", "A49.tif"),
        (r"regex:(?P<well>\w+)", "control.tif"),
        (r"regex:(?P<site>x)", "X.tif"),
        (r"regex:P/(?P<site>\d)", "Q/1.tif"),
    ],
)
def test_other_names_are_not_read_by_the_pattern(pattern: str, path: str) -> None:
    assert scheme_named(pattern).parse(path) is None


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        (r"(?P<row>\w)_(?P<site>\d)", "has the group 'row' and is missing the group 'column'"),
        (r"(?P<column>\d)_(?P<site>\d)", "has the group 'column' and is missing the group 'row'"),
        (r"(?P<channel>\w+)", "is missing the group 'well' (or 'row' and 'column'), or 'site'"),
        (r"(\w\d+)_(\d+)", "is missing the group 'well'"),
        (r"(?P<well>.)(?P<row>.)(?P<column>.)", "also 'well', which say the same"),
        (
            r"(?P<wel>\w\d+)",
            "the group 'wel' means nothing here (did you mean 'well'?): expected groups among",
        ),
        (r"(?P<well>\w\d+", "not a regular expression (missing )"),
        ("", "is missing the group 'well'"),
    ],
)
def test_a_pattern_that_cannot_be_a_scheme_says_what_is_missing(pattern: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        scheme_named(f"regex:{pattern}")
    assert told in str(caught.value)
    assert str(caught.value).startswith(f"--scheme regex:{pattern}: ")


def test_a_pattern_makes_a_plan() -> None:
    names = [
        f"SIMCEPImages_A{well:02d}_C1_F4_s{site:02d}_w{w}.TIF" for well in (2, 1) for site in (1, 10) for w in (1, 2)
    ]
    names += [name.replace("w1", "w1 copy") for name in names[:1]]
    planned = choose(understand(names, root_name="BBBC005", scheme=BBBC005), Choice(channel="w1"))
    assert planned.scheme == BBBC005
    assert planned.unmatched == ("SIMCEPImages_A02_C1_F4_s01_w1 copy.TIF",)
    rows = planned.manifest.to_pylist()
    assert [(row["well"], row["site"], row["channel"], row["planes"]) for row in rows] == [
        (f"A0{well}", site, "w1", [f"SIMCEPImages_A0{well}_C1_F4_s{int(site):02d}_w1.TIF"])
        for well in (1, 2)
        for site in ("1", "10")
    ]


def test_a_pattern_that_no_name_matches_and_a_plane_that_is_no_number_are_told() -> None:
    with pytest.raises(NamingError, match=r"none of 1 images \(such as a\.tif\) is named as in the 'regex:.*' scheme"):
        understand(["a.tif"], root_name="P", scheme=r"regex:(?P<site>\d+)")
    with pytest.raises(NamingError, match=r"P/1z03\.tif: expected the group 'z' to hold digits, found 'z03'"):
        understand(["P/1z03.tif"], root_name="P", scheme=r"regex:(?P<site>\d)(?P<z>.*)")
