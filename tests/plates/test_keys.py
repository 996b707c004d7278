from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucseg_ray.errors import NamingError
from nucseg_ray.plates.keys import SiteKey, Well

WELLS = st.builds(Well, st.integers(0, 31), st.integers(1, 48))
PARTS = st.text("aB7 ._-%é", min_size=1, max_size=8).filter(lambda text: not text.startswith("."))
KEYS = st.builds(SiteKey, PARTS, st.one_of(st.just(""), PARTS), PARTS, st.one_of(st.none(), PARTS))


@pytest.mark.parametrize(
    ("text", "row", "column", "name"),
    [
        ("A1", 0, 1, "A01"),
        ("a01", 0, 1, "A01"),
        ("h12", 7, 12, "H12"),
        ("P24", 15, 24, "P24"),
        ("Z09", 25, 9, "Z09"),
        ("AA03", 26, 3, "AA03"),
        ("af48", 31, 48, "AF48"),
    ],
)
def test_well_reads_every_spelling(text: str, row: int, column: int, name: str) -> None:
    well = Well.parse(text)
    assert (well.row, well.column, well.name) == (row, column, name)


@given(WELLS, WELLS)
def test_keys_sort_as_their_wells(one: Well, other: Well) -> None:
    assert (SiteKey("P", one.name, "1") < SiteKey("P", other.name, "1")) == (one < other)


@given(WELLS)
def test_well_name_reads_back(well: Well) -> None:
    assert Well.parse(well.name) == well
    assert Well.parse(well.name.lower()) == well


@pytest.mark.parametrize("text", ["", "A", "1", "1A", "A001", "AAA1", "A-1", "A1 ", "A1\n", "Å1", "A١"])
def test_what_is_not_a_well_is_refused(text: str) -> None:
    with pytest.raises(NamingError, match="is not a well: expected one or two letters") as caught:
        Well.parse(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("text", ["A0", "A49", "AG01", "ZZ99"])
def test_wells_of_no_plate_are_refused(text: str) -> None:
    with pytest.raises(NamingError, match=r"no plate has a well in row \d+, column \d+: expected rows 1 to 32"):
        Well.parse(text)


def test_wells_sort_by_row_then_column() -> None:
    names = ["AA01", "B02", "A10", "A02", "Z48"]
    assert [well.name for well in sorted(map(Well.parse, names))] == ["A02", "A10", "B02", "Z48", "AA01"]


@pytest.mark.parametrize(
    ("key", "path"),
    [
        (SiteKey("P1", "A01", "3"), "P1/A01/3.png"),
        (SiteKey("P1", "A01", "3", "12"), "P1/A01/3_t12.png"),
        (SiteKey("folder", "", "a__b"), "folder/a__b.png"),
        (SiteKey("20240101", "", "0", "0"), "20240101/0_t0.png"),
    ],
)
def test_key_is_the_output_path(key: SiteKey, path: str) -> None:
    assert key.path(".png") == path
    assert str(key) + ".png" == path
    assert key.stem == path.rpartition("/")[2].removesuffix(".png")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "is empty"),
        ("..", "begins with a dot"),
        (".", "begins with a dot"),
        (".hidden", "begins with a dot"),
        ("a/b", "holds a slash"),
        ("a\\b", "holds a slash"),
        ("a\nb", "holds a control character"),
        ("a\x7f", "holds a control character"),
        ("a\udc80", "is not UTF-8"),
        ("é" * 101, "is longer than 200 bytes"),
    ],
)
@pytest.mark.parametrize("part", ["plate", "well", "site", "timepoint"])
def test_parts_that_are_no_file_name_are_refused(part: str, text: str, fault: str) -> None:
    parts: dict[str, str] = {"plate": "P", "well": "A01", "site": "1", "timepoint": "1"} | {part: text}
    if part == "well" and not text:
        assert SiteKey(**parts).path("") == "P/1_t1"  # a plain folder has no wells
        return
    with pytest.raises(NamingError, match=fault) as caught:
        SiteKey(**parts)
    assert repr(text) in str(caught.value)
    assert "Rename" in str(caught.value)


def test_names_of_people_are_kept() -> None:
    name = "Plätte 1 (#2, 50%) 日本"
    assert SiteKey(name, "A01", "1").path(".png") == f"{name}/A01/1.png"
    assert SiteKey("é" * 100, "A01", "1").plate == "é" * 100


def test_keys_sort_as_on_the_plate_and_without_time_point_first() -> None:
    keys = [
        SiteKey("P", "A01", "2", None),
        SiteKey("P", "A01", "10", "2"),
        SiteKey("P", "A01", "10", "10"),
        SiteKey("P", "A01", "10", None),
        SiteKey("P", "", "9", None),
        SiteKey("O", "Z09", "9", "9"),
        SiteKey("O", "AA01", "1"),
        SiteKey("P", "A01", "x"),
        SiteKey("P", "A01", "02"),
    ]
    assert [str(key) for key in sorted(keys)] == [
        "O/Z09/9_t9",
        "O/AA01/1",
        "P/9",
        "P/A01/02",
        "P/A01/2",
        "P/A01/10",
        "P/A01/10_t2",
        "P/A01/10_t10",
        "P/A01/x",
    ]


@given(KEYS, KEYS)
def test_order_is_total_and_agrees_with_equality(one: SiteKey, other: SiteKey) -> None:
    assert (one < other) + (one == other) + (one > other) == 1
    assert (one <= other) == (not one > other)


@given(KEYS)
def test_keys_are_values(key: SiteKey) -> None:
    again = pickle.loads(pickle.dumps(key))
    assert again == key
    assert hash(again) == hash(key)
    assert key.path("").split("/") == [part for part in (key.plate, key.well, key.stem) if part]
