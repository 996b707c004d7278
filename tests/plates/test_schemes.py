from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucseg_ray.errors import UsageError
from nucseg_ray.imaging.codecs import IMAGE_SUFFIXES
from nucseg_ray.plates.keys import SiteKey, Well, counted_well
from nucseg_ray.plates.naming import FileName, Scheme
from nucseg_ray.plates.schemes import SCHEMES

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
    ("imagexpress", "P/TimePoint_1/P_AF48.TIF", FileName("P", "AF48", "1", "1", None, "w1")),
    ("imagexpress", f"TimePoint_2/ZStep_3/A1{GUID}.tif", FileName(None, "A01", "1", "2", 3, "w1")),
    ("imagexpress", f"mcf-z-stacks-03212011_a01_s1_w1{GUID.lower()}.tif", FileName(None, "A01", "1", None, None, "w1")),
    (
        "imagexpress",
        f"P/BBBC006_v1_images_z_00/mcf-z-stacks-03212011_p24_s2_w2{GUID.lower()}.tif",
        FileName("P", "P24", "2", None, 0, "w2"),
    ),
    ("imagexpress", f"BBBC006_v1_images_z_16/m_a01_s1_w1{GUID}.tif", FileName(None, "A01", "1", None, 16, "w1")),
    ("cq1", "P/Image/W0014F0002T0001Z003C2.tif", FileName("P", "W0014", "2", "1", 3, "C2")),
    ("cq1", "P/Image/W0000F0001T0001Z000C1.tif", FileName("P", "W0000", "1", "1", 0, "C1")),
    ("cq1", "P/Projection/W0014F0002T0001Z000C2.tif", FileName("P", "W0014", "2", "1", None, "C2")),
    ("cq1", "W1536F0001T0012Z010C1.tif", FileName(None, "W1536", "1", "12", 10, "C1")),
    ("operetta", "r01c01f001p01-ch1.tiff", FileName(None, "A01", "1", None, 1, "ch1")),
    ("operetta", "r01c01f01p01-ch1sk3.tiff", FileName(None, "A01", "1", "3", 1, "ch1")),
    ("operetta", "P/Images/r02c07f01p01rc2-ch1sk1fk1fl1.tiff", FileName("P", "B07", "1", "1", 1, "rc2-ch1")),
    (
        "operetta",
        f"P/hs/{GUID.lower()}/images/r03c07/r03c07f01p02-ch01t03.tiff",
        FileName("P", "C07", "1", "3", 2, "ch01"),
    ),
    ("operetta", "P/r03c07/r03c07f01p01-ch1sk1fk1fl1.tiff", FileName("P", "C07", "1", "1", 1, "ch1")),
    ("operetta", "P/Images/r16c24f12p01-ch02t10.tiff", FileName("P", "P24", "12", "10", 1, "ch02")),
    ("incell", "A - 1(fld 1 wv Cy5 - Cy5).tif", FileName(None, "A01", "1", None, None, "Cy5 - Cy5")),
    (
        "incell",
        "P/F - 001(fld 01 wv TL-Brightfield - DAPI).tif",
        FileName("P", "F01", "1", None, None, "TL-Brightfield - DAPI"),
    ),
    ("incell", "Plate1_HA41_B - 01(fld 01 wv 390 - Blue).tif", FileName(None, "B01", "1", None, None, "390 - Blue")),
    ("incell", "A - 01(fld 1 wv Green - dsRed z 3).tif", FileName(None, "A01", "1", None, 3, "Green - dsRed")),
    ("incell", "A - 01(fld 1 wv UV - DAPI z 3 time 2 - 2636ms).tif", FileName(None, "A01", "1", "2", 3, "UV - DAPI")),
    (
        "incell",
        "B - 02(fld 01 wv Blue - FITC - time 01 - 0 ms).tif",
        FileName(None, "B02", "1", "1", None, "Blue - FITC"),
    ),
    ("incell", "A - 13(fld 2).tif", FileName(None, "A13", "2", None, None, "")),
    ("incell", "AF_48_f12_c2_xBlue_mFITC_z1_t1.tif", FileName(None, "AF48", "12", "1", 1, "c2_xBlue_mFITC")),
    (
        "scanr",
        "P/data/--W00088--P00001--Z00002--T00003--nucleus-dapi.tif",
        FileName("P", "W0088", "1", "3", 2, "nucleus-dapi"),
    ),
    ("scanr", "B2--W00026--P00011--Z00000--T00000--dapi.tif", FileName(None, "B02", "11", "0", 0, "dapi")),
    ("scanr", "cell_image-B2--W00026--P00001--Z00000--T00000--dapi.tiff", FileName(None, "B02", "1", "0", 0, "dapi")),
    ("scanr", "Treated--W00026--P00001--Z00000--T00000--dapi.tif", FileName(None, "W0026", "1", "0", 0, "dapi")),
    (
        "micromanager",
        "P/H12-Site_24/img_channel001_position119_time000000002_z010.tif",
        FileName("P", "H12", "24", "2", 10, "channel001"),
    ),
    (
        "micromanager",
        "P/Default/img_channel000_position000_time000000000_z000.tif",
        FileName("P", "", "0", "0", 0, "channel000"),
    ),
    (
        "micromanager",
        "P/Pos7/img_channel000_position007_time000000000_z000.tif",
        FileName("P", "", "7", "0", 0, "channel000"),
    ),
    (
        "micromanager",
        "exp/cellsX/img_channel000_position003_time000000000_z000.tif",
        FileName("exp", "", "cellsX", "0", 0, "channel000"),
    ),
    (
        "micromanager",
        "Pos-A/img_channel000_position001_time000000000_z000.tif",
        FileName(None, "", "Pos-A", "0", 0, "channel000"),
    ),
    ("micromanager", "P/2-Pos_001_003/img_000000004_DAPI_002.tif", FileName("P", "", "2-Pos_001_003", "4", 2, "DAPI")),
    ("micromanager", "P/Pos12/img_000000000_Cy3_000.tif", FileName("P", "", "12", "0", 0, "Cy3")),
    ("micromanager", "P/100X_round1_1_MMStack_A1-Site_15.ome.tif", FileName("P", "A01", "15", None, None, "")),
    ("micromanager", "x_MMStack_Pos0.ome.tif", FileName(None, "", "0", None, None, "")),
    ("cellomics", "AS_09047_050428030001_O14f01d2.TIF", FileName(None, "O14", "1", None, None, "d2")),
    ("cellomics", "P/070314_TDS_VSV_50K_P2_1_B02f0d0.png", FileName("P", "B02", "0", None, None, "d0")),
    ("folders", "batch/P1/a1/003/Alexa 488.tif", FileName("P1", "A01", "3", None, None, "Alexa 488")),
    ("folders", "Well B02/site_4/DAPI.png", FileName(None, "B02", "4", None, None, "DAPI")),
    ("folders", "P/AA03/field7_GFP.tif", FileName("P", "AA03", "7", None, None, "GFP")),
    ("folders", "P/AA03/s7.tif", FileName("P", "AA03", "7", None, None, "")),
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
    ("operetta", "r01c01f01p01-ch01t01sk1.tiff"),
    ("operetta", "r33c01f01p01-ch1sk1fk1fl1.tiff"),
    ("operetta", "r00c01f01p01-ch1sk1fk1fl1.tiff"),
    ("imagexpress", "TimePoint_1/P_A49.TIF"),
    ("imagexpress", "TimePoint_1/P_B02_thumb.TIF"),
    ("imagexpress", "P/P_B02.TIF"),
    ("cellvoyager", "D08_F0001_T0001_Z0001_C01.tif"),
    ("cq1", "Image/W001F0001T0001Z001C1.tif"),
    ("cq1", "Image/W0001F0001T0001Z001.tif"),
    ("operetta", "r01c01f01p01ch1.tiff"),
    ("operetta", "r01c01f01p01-ch1fl1sk1.tiff"),
    ("operetta", "r01c01f01-ch1.tiff"),
    ("incell", "A - 01.tif"),
    ("incell", "A - 01(fld 1 wv DAPI - DAPI).tif.xdce"),
    ("incell", "A - 49(fld 1).tif"),
    ("incell", "A_01_f2_c1_z3_t2.tif"),
    ("scanr", "W00001--P00001--Z00000--T00000--DAPI.tif"),
    ("scanr", "A1--W00001--P00001--Z00000--DAPI.tif"),
    ("micromanager", "img_000000000_DAPI.tif"),
    ("micromanager", "img_channel000_position000_time0_z000.tif"),
    ("micromanager", "x_MMStack_Pos0_1.ome.tif"),
    ("cellomics", "AS_09125_050116030001_D03f00d0LINE.jpg"),
    ("cellomics", "AS_09125_050116030001_D03f00.tif"),
    ("folders", "A01/DAPI.tif"),
    ("folders", "P/controls/1/DAPI.tif"),
    ("folders", "P/A01/1/2/DAPI.tif"),
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
def test_examples_are_read_by_their_own_scheme_alone(scheme: Scheme) -> None:
    for form in scheme.forms:
        assert form.example.lower().endswith(IMAGE_SUFFIXES)
        readers = [other.name for other in SCHEMES.values() if other.parse(form.example) is not None]
        assert readers == list(dict.fromkeys([scheme.name, "images"]))
        # No form stands in for another one: without it the example would mean something else, or nothing.
        others = tuple(other for other in scheme.forms if other is not form)
        assert replace(scheme, forms=others).parse(form.example) != scheme.parse(form.example)
    assert pickle.loads(pickle.dumps(scheme)) == scheme


def test_every_scheme_is_tried_with_right_and_wrong_names() -> None:
    assert {name for name, *_ in READ} == {name for name, *_ in NOT_READ} == set(COMPLETE) == set(SCHEMES)


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
    "cq1": names(
        wells=st.integers(0, 9999).map(counted_well),
        sites=st.integers(0, 9999).map(str),
        timepoints=st.integers(0, 9999).map(str),
        planes=st.one_of(st.none(), PLANES),
        channels=numbered("C"),
    ),
    "operetta": names(channels=numbered("ch")),
    "incell": names(
        timepoints=st.one_of(st.none(), NUMBERS),
        planes=st.one_of(st.none(), PLANES),
        channels=st.sampled_from(["DAPI - DAPI", "TL-Phase Contrast - Cy3 wix 1", "390 - Blue", ""]),
    ),
    "scanr": names(channels=st.sampled_from(["DAPI", "nucleus-dapi", "w1--x"])),
    "micromanager": names(channels=st.integers(0, 20).map("channel{:03d}".format)),
    "cellomics": names(
        sites=st.integers(0, 999).map(str), timepoints=st.none(), planes=st.none(), channels=numbered("d")
    ),
    "folders": names(
        # A plate called like a well is taken for one where what follows could be its site.
        plates=PLATES.filter(lambda plate: not plate or SCHEMES["folders"].parse(f"{plate}/1/DAPI.tif") is None),
        sites=st.integers(0, 9999).map(str),
        timepoints=st.none(),
        planes=st.none(),
        channels=st.sampled_from(["DAPI", "Alexa 488", ""]),
    ),
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
@settings(deadline=None)
@given(data=st.data())
def test_format_and_parse_are_inverse(scheme: str, data: st.DataObject) -> None:
    name = data.draw(COMPLETE[scheme])
    path = SCHEMES[scheme].format(name)
    assert SCHEMES[scheme].parse(path) == name
    assert SCHEMES[scheme].plate_folder(path) == (name.plate or "")
    assert not SCHEMES[scheme].is_ignored(path)


@pytest.mark.parametrize("scheme", [name for name in COMPLETE if name != "images"])
@settings(deadline=None)
@given(data=st.data())
def test_schemes_exclude_one_another(scheme: str, data: st.DataObject) -> None:
    path = SCHEMES[scheme].format(data.draw(COMPLETE[scheme]))
    readers = [other.name for other in SCHEMES.values() if other.parse(path) is not None]
    assert readers == [scheme, "images"]


@pytest.mark.parametrize("scheme", [name for name in COMPLETE if name != "images"])
def test_what_a_scheme_always_writes_is_completed(scheme: str) -> None:
    well = "W0029" if SCHEMES[scheme].counts_wells else "C05"
    given_name = FileName("P", well, "1", None, None, SCHEMES[scheme].channels[0])
    expected = {
        "bbbc": ("P/Channel1-29-C-05.tif", given_name),
        "imagexpress": ("P/P_C05_s1_w1.tif", given_name),
        "cellvoyager": ("P/P_C05_T0001F001L01A01Z01C01.tif", FileName("P", "C05", "1", "1", 1, "C01")),
        "cq1": ("P/Projection/W0029F0001T0001Z000C1.tif", FileName("P", "W0029", "1", "1", None, "C1")),
        "operetta": ("P/Images/r03c05f01p01-ch1sk1fk1fl1.tiff", FileName("P", "C05", "1", "1", 1, "ch1")),
        "incell": ("P/C - 05(fld 1 wv DAPI - DAPI).tif", given_name),
        "scanr": ("P/data/C5--W00029--P00001--Z00000--T00000--DAPI.tif", FileName("P", "C05", "1", "0", 0, "DAPI")),
        "micromanager": (
            "P/C5-Site_1/img_channel000_position001_time000000000_z000.tif",
            FileName("P", "C05", "1", "0", 0, "channel000"),
        ),
        "cellomics": ("P/P_C05f01d0.tif", given_name),
        "folders": ("P/C05/1/DAPI.tif", given_name),
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
        ("cq1", FileName(None, "A01", "1", None, None, "C1"), "would not know"),
        ("incell", FileName(None, "A01", "1", None, None, "a/b"), "would not know"),
        ("micromanager", FileName(None, "", "1", None, None, "channel000"), "is not a well"),
        ("folders", FileName(None, "A01", "1", "2", None, "DAPI"), "timepoint='2'"),
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
