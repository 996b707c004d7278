from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucseg_ray.errors import UsageError
from nucseg_ray.plates.keys import SiteKey, Well
from nucseg_ray.plates.schemes import IMAGE_SUFFIXES, SCHEMES, FileName

GUID = "17654C10-92F1-4DFD-98AA-6A01BBD77557"

READ = [
    ("bbbc", "Channel2-01-A-01.tif", FileName(None, "A01", "1", None, None, "Channel2")),
    ("bbbc", "plate 7/w1-DNA-0384-P-24.BMP", FileName("plate 7", "P24", "1", None, None, "w1-DNA")),
    ("imagexpress", "9987_B02_s1_w1.TIF", FileName(None, "B02", "1", None, None, "w1")),
    ("imagexpress", "B02_s1_w1.tiff", FileName(None, "B02", "1", None, None, "w1")),
    ("imagexpress", "P/TimePoint_2/9987_B02_s12_w10.TIF", FileName("P", "B02", "12", "2", None, "w10")),
    ("imagexpress", "TimePoint_1/ZStep_0/9987_B02_s1_w1.TIF", FileName(None, "B02", "1", "1", None, "w1")),
    ("imagexpress", "TimePoint_010/ZStep_10/X_B2_s01_w1.TIF", FileName(None, "B02", "1", "10", 10, "w1")),
    ("imagexpress", "batch/P/ZStep_3/X_AA03_s2_w4.tif", FileName("P", "AA03", "2", None, 3, "w4")),
    ("imagexpress", f"2023-02-21/1334/Mix_E08_s1_w1{GUID}.tif", FileName(None, "E08", "1", None, None, "w1")),
    ("imagexpress", f"P/2023-02-21/1334/ZStep_2/Mix_E08_s2_w2{GUID}.tif", FileName("P", "E08", "2", None, 2, "w2")),
    (
        "imagexpress",
        f"Week1/Week1_150607_B02_s1_w12{GUID.lower()}.tif",
        FileName("Week1", "B02", "1", None, None, "w12"),
    ),
    ("imagexpress", "X_B02_w2.tif", FileName(None, "B02", "1", None, None, "w2")),
    ("imagexpress", f"X_B02_s3{GUID}.tif", FileName(None, "B02", "3", None, None, "w1")),
    ("imagexpress", "A1_s1_B02_s4_w2.tif", FileName(None, "B02", "4", None, None, "w2")),
    ("cellvoyager", "a_b_D08_T0001F002L01A01Z04C01.tif", FileName(None, "D08", "2", "1", 4, "C01")),
    ("cellvoyager", "x/y/Assay#655090_P24_T0100F010L01A02Z10C02.png", FileName("y", "P24", "10", "100", 10, "C02")),
    ("operetta", "r03c03f03p01-ch5sk1fk1fl1.tiff", FileName(None, "C03", "3", "1", 1, "ch5")),
    ("operetta", "P 1/Images/r16c24f12p10-ch1sk20fk1fl1.tiff", FileName("P 1", "P24", "12", "20", 10, "ch1")),
    ("operetta", "Images/r01c01f01p01-ch1sk1fk1fl1.tif", FileName(None, "A01", "1", "1", 1, "ch1")),
    ("images", "nuclei 01.png", FileName(None, "", "nuclei 01", None, None, "")),
    ("images", "a/b/c.ome.tif", FileName(None, "", "a__b__c.ome", None, None, "")),
]

NOT_READ = [
    ("bbbc", "Channel1ILLUM.mat"),
    ("bbbc", "Channel2-01-A-01.csv"),
    ("bbbc", "Channel2-01-A-49.tif"),
    ("bbbc", "-01-A-01.tif"),
    ("imagexpress", "9987.HTD"),
    ("imagexpress", "9987_B02.tif"),
    ("imagexpress", "9987_B02_s1_w1_thumb.tif"),
    ("imagexpress", f"9987_B02_s1_w1_thumb{GUID}.tif"),
    ("imagexpress", f"9987_B02_s1_w1{GUID[:-1]}.tif"),
    ("imagexpress", "9987_B02_s1_w1.tif.txt"),
    ("cellvoyager", "DC_DCAM#1_CAM3.tif"),
    ("cellvoyager", "SC_BP445-45_20x v2_M01_CH01.tif"),
    ("cellvoyager", "MeasurementData.mlf"),
    ("operetta", "r03c03f03p01-ch5sk1fk1fl1.tiff.tmp"),
    ("operetta", "r33c01f01p01-ch1sk1fk1fl1.tiff"),
    ("operetta", "r00c01f01p01-ch1sk1fk1fl1.tiff"),
    ("images", "a/.png"),
    ("images", "notes.txt"),
]


@pytest.mark.parametrize(("scheme", "path", "name"), READ)
def test_names_are_read(scheme: str, path: str, name: FileName) -> None:
    assert SCHEMES[scheme].parse(path) == name


@pytest.mark.parametrize(("scheme", "path"), NOT_READ)
def test_other_names_are_not_read(scheme: str, path: str) -> None:
    assert SCHEMES[scheme].parse(path) is None


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=list(SCHEMES))
def test_example_is_read_by_its_own_scheme(scheme) -> None:
    assert scheme.parse(scheme.example) is not None
    assert scheme.example.lower().endswith(IMAGE_SUFFIXES)
    assert pickle.loads(pickle.dumps(scheme)) == scheme


PLATES = st.one_of(
    st.none(),
    st.text("aZ_9 -#", min_size=1, max_size=12),
    st.sampled_from(["Images", "B02_s1", "20230101", "P_A01_s1_w1"]),
)
WELLS = st.builds(Well, st.integers(0, 31), st.integers(1, 48)).map(lambda well: well.name)
NUMBERS = st.integers(0, 10_000).map(str)
PLANES = st.integers(1, 300)


def names(plates=PLATES, wells=WELLS, sites=NUMBERS, timepoints=NUMBERS, planes=PLANES, channels=""):
    return st.builds(FileName, plates, wells, sites, timepoints, planes, channels)


def numbered(prefix: str, digits: int = 1):
    return st.integers(1, 99).map(lambda number: f"{prefix}{number:0{digits}d}")


COMPLETE = {
    "bbbc": names(
        sites=st.just("1"), timepoints=st.none(), planes=st.none(), channels=st.sampled_from(["Channel2", "DNA", "a-b"])
    ),
    "imagexpress": names(
        timepoints=st.one_of(st.none(), NUMBERS), planes=st.one_of(st.none(), PLANES), channels=numbered("w")
    ),
    "cellvoyager": names(channels=numbered("C", 2)),
    "operetta": names(channels=numbered("ch")),
    "images": names(
        plates=st.none(),
        wells=st.just(""),
        sites=st.text("aZ_9 -#.é", min_size=1, max_size=12),
        timepoints=st.none(),
        planes=st.none(),
        channels=st.just(""),
    ),
}


@pytest.mark.parametrize("scheme", list(COMPLETE))
@given(data=st.data())
def test_format_and_parse_are_inverse(scheme: str, data: st.DataObject) -> None:
    name = data.draw(COMPLETE[scheme])
    path = SCHEMES[scheme].format(name)
    assert SCHEMES[scheme].parse(path) == name
    assert SCHEMES[scheme].plate_folder(path) == (name.plate or "")
    assert not SCHEMES[scheme].is_ignored(path)


@pytest.mark.parametrize("scheme", [name for name in COMPLETE if name != "images"])
@given(data=st.data())
def test_schemes_exclude_one_another(scheme: str, data: st.DataObject) -> None:
    path = SCHEMES[scheme].format(data.draw(COMPLETE[scheme]))
    readers = [other.name for other in SCHEMES.values() if other.parse(path) is not None]
    assert readers == [scheme, "images"]


@pytest.mark.parametrize("scheme", ["bbbc", "imagexpress", "cellvoyager", "operetta"])
def test_what_a_scheme_always_writes_is_completed(scheme: str) -> None:
    channel = {"bbbc": "DNA", "imagexpress": "w1", "cellvoyager": "C01", "operetta": "ch1"}[scheme]
    given_name = FileName("P", "C05", "1", None, None, channel)
    expected = {
        "bbbc": ("P/DNA-29-C-05.tif", given_name),
        "imagexpress": ("P/P_C05_s1_w1.tif", given_name),
        "cellvoyager": ("P/P_C05_T0001F001L01A01Z01C01.tif", FileName("P", "C05", "1", "1", 1, "C01")),
        "operetta": ("P/Images/r03c05f01p01-ch1sk1fk1fl1.tiff", FileName("P", "C05", "1", "1", 1, "ch1")),
    }[scheme]
    path = SCHEMES[scheme].format(given_name)
    assert (path, SCHEMES[scheme].parse(path)) == expected


@pytest.mark.parametrize(
    ("well", "number"), [("A01", "01"), ("A12", "12"), ("H12", "96"), ("A13", "13"), ("P24", "384"), ("AF48", "1536")]
)
def test_bbbc_number_counts_wells(well: str, number: str) -> None:
    path = SCHEMES["bbbc"].format(FileName(None, well, "1", None, None, "DNA"))
    assert path == f"DNA-{number}-{Well.parse(well).letters}-{well[-2:]}.tif"


@pytest.mark.parametrize(
    ("scheme", "name", "what"),
    [
        ("bbbc", FileName(None, "A01", "2", None, None, "DNA"), "site='2'"),
        ("bbbc", FileName(None, "A01", "1", "3", None, "DNA"), "timepoint='3'"),
        ("bbbc", FileName(None, "A01", "1", None, 2, "DNA"), "z=2"),
        ("bbbc", FileName("a/b", "A01", "1", None, None, "DNA"), "plate='a/b'"),
        ("imagexpress", FileName("ZStep_1", "A01", "1", None, None, "w1"), "plate='ZStep_1'"),
        ("imagexpress", FileName(None, "A01", "1", None, 0, "w1"), "z=0"),
        ("imagexpress", FileName(None, "A01", "1", None, None, "DAPI"), "would not know 'plate_A01_s1_DAPI.tif' again"),
        ("imagexpress", FileName(None, "A01", "01", None, None, "w1"), "site='01'"),
        ("cellvoyager", FileName(None, "A01", "one", None, None, "C01"), "cannot be written"),
        ("operetta", FileName(None, "Q99", "1", None, None, "ch1"), "cannot be written"),
        ("images", FileName("P", "", "1", None, None, ""), "plate='P'"),
    ],
)
def test_what_a_scheme_cannot_hold_is_refused(scheme: str, name: FileName, what: str) -> None:
    with pytest.raises(UsageError, match=what) as caught:
        SCHEMES[scheme].format(name)
    assert f"'{scheme}' scheme" in str(caught.value)
    assert SCHEMES[scheme].example in str(caught.value)


@pytest.mark.parametrize("path", ["a_thumb.tif", f"P/2023-02-21/1334/Mix_E08_s1_w1_thumb{GUID}.tif", "x_THUMB.TIF"])
def test_thumbnails_are_ignored(path: str) -> None:
    assert SCHEMES["imagexpress"].is_ignored(path)
    assert not SCHEMES["bbbc"].is_ignored(path)


def test_key_takes_the_input_for_the_plate_where_no_folder_names_it() -> None:
    assert FileName(None, "A01", "1", "2", 5, "w1").key("root") == SiteKey("root", "A01", "1", "2")
    assert FileName("P", "A01", "1", None, 5, "w1").key("root") == SiteKey("P", "A01", "1", None)
