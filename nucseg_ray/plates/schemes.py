"""The table of naming schemes: how each instrument names its images.

A new scheme is one more entry of `SCHEMES`, with an example and a test. The patterns of the instruments exclude one
another (a test proves it), so that looking at a listing decides which one it follows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from nucseg_ray.plates import writers
from nucseg_ray.plates.naming import SUFFIX, Form, Scheme

_WELL = r"(?P<row>[A-Z]{1,2})(?P<column>[0-9]{1,2})"
_GUID = r"(?:[0-9A-F]{8}(?:-[0-9A-F]{4}){3}-[0-9A-F]{12})?"
_SITE_WORD = r"(?:site|field|fov|fld|position|pos|f|s)?[-_ ]?"


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text, re.ASCII | re.IGNORECASE)


def _form(example: str, file: str, folders: str = "", only_channel: str = "") -> Form:
    return Form(
        example=example,
        file=_pattern(file + SUFFIX),
        folders=_pattern(rf"(?P<folder>(?:[^/]+/)*?){folders}"),
        only_channel=only_channel,
    )


# MetaXpress. ZStep_0 is the projection that the instrument stores beside planes 1, 2, ...; a database export puts it
# beside the ZStep folders instead, below <date>/<plate id>. BBBC006 has planes only, from 0.
_ZSTEP = r"(?:ZStep_0+/|(?:ZStep_|BBBC006_v1_images_z_)(?P<z>[0-9]+)/)?"
_METAXPRESS = rf"(?:[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}/[0-9]+/)?(?:TimePoint_(?P<time>[0-9]+)/)?{_ZSTEP}"
_HARMONY = r"r(?P<row>[0-9]{2,})c(?P<column>[0-9]{2,})f(?P<site>[0-9]{2,})p(?P<z>[0-9]{2,})"
_HARMONY_FOLDERS = rf"(?:hs/{_GUID}/)?(?:Images/)?(?:r[0-9]+c[0-9]+/)?"
# Micro-Manager's folder of a position: of the HCS site generator, of a grid, of a list, or of an only one.
_POSITION = (
    rf"{_WELL}-Site_(?P<site>[0-9]+)|(?P<label>[0-9]+-Pos_?[0-9]+_[0-9]+)"
    r"|Pos_?(?P<position>[0-9]{3}_[0-9]{3}|[0-9]+)"
)

IMAGES = Scheme(
    "images",
    "any other images: each is a site of its own, named by its path",
    (Form("any/name.png", _pattern(rf"(?P<path>[\s\S]*[^/]){SUFFIX}"), _pattern(r"[\s\S]*"), whole_path=True),),
    write=writers.write_image,
    general=True,
)
"""The fallback for a plain folder: each image is its own site, named by its path with `__` for each slash."""

SCHEMES: Mapping[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        Scheme(
            "bbbc",
            "SBS plates of the Broad Bioimage Benchmark Collection (BBBC013, BBBC014)",
            (
                _form(
                    "Channel2-01-A-01.tif",
                    r"(?P<channel>[^/]+)-[0-9]{2,4}-(?P<row>[A-Z]{1,2})-(?P<column>[0-9]{2})",
                ),
            ),
            write=writers.write_bbbc,
            channels=("Channel1", "Channel2", "Channel3", "Channel4"),
        ),
        # `_s1` and `_w1` are left out where there is one only; both together only in a folder that tells MetaXpress, or
        # any name would match. The first thing that can be the well is the well: in `Plate_A01_s1_w1` a later one would
        # be S01.
        Scheme(
            "imagexpress",
            "Molecular Devices ImageXpress (MetaXpress), BBBC006, BBBC021, BBBC022",
            (
                _form(
                    "TimePoint_1/ZStep_1/Plate_B02_s1_w1.TIF",
                    rf"(?:[^/]*?_)??{_WELL}(?=_[sw][0-9])(?:_s(?P<site>[0-9]+))?(?:_(?P<channel>w[0-9]+))?{_GUID}",
                    _METAXPRESS,
                    only_channel="w1",
                ),
                _form(
                    "TimePoint_1/Plate_B02.TIF",
                    rf"(?:[^/]*_)?{_WELL}{_GUID}",
                    rf"TimePoint_(?P<time>[0-9]+)/{_ZSTEP}",
                    only_channel="w1",
                ),
            ),
            write=writers.write_imagexpress,
            ignored=_pattern(rf"[\s\S]*_thumb{_GUID}{SUFFIX}"),
            channels=("w1", "w2", "w3", "w4"),
        ),
        Scheme(
            "cellvoyager",
            "Yokogawa CellVoyager 7000 and 8000",
            (
                _form(
                    "Plate_D08_T0001F002L01A01Z04C01.tif",
                    rf"(?:[^/]*_)?{_WELL}_T(?P<time>[0-9]{{4,}})F(?P<site>[0-9]{{3,}})"
                    r"L[0-9]{2,}A[0-9]{2,}Z(?P<z>[0-9]{2,})(?P<channel>C[0-9]{2,})",
                ),
            ),
            write=writers.write_cellvoyager,
            channels=("C01", "C02", "C03", "C04"),
        ),
        # In `Image` every number is a plane; Z000 elsewhere is the projection.
        Scheme(
            "cq1",
            "Yokogawa CQ1 and CQ3000",
            (
                _form(
                    "Image/W0001F0001T0001Z001C1.tif",
                    r"W(?P<number>[0-9]{4})F(?P<site>[0-9]{4})T(?P<time>[0-9]{4})Z(?P<z>[0-9]{3})(?P<channel>C[0-9]+)",
                    "Image/",
                ),
                _form(
                    "Projection/W0001F0001T0001Z000C1.tif",
                    r"W(?P<number>[0-9]{4})F(?P<site>[0-9]{4})T(?P<time>[0-9]{4})Z(?:000|(?P<z>[0-9]{3}))"
                    r"(?P<channel>C[0-9]+)",
                    "(?:Projection/)?",
                ),
            ),
            write=writers.write_cq1,
            channels=("C1", "C2", "C3", "C4"),
            counts_wells=True,
        ),
        # sk is the time point, fk a fast series, fl the lifetime; newer exports have t. Harmony 3 counted channels by
        # their records (rc).
        Scheme(
            "operetta",
            "Revvity (PerkinElmer) Operetta and Opera Phenix (Harmony)",
            (
                _form(
                    "Images/r03c03f03p01-ch5sk1fk1fl1.tiff",
                    rf"{_HARMONY}(?:-(?=ch)|(?=rc))(?P<channel>(?:rc[0-9]+-)?ch[0-9]+)"
                    r"(?:sk(?P<time>[0-9]+))?(?:fk[0-9]+)?(?:fl[0-9]+)?",
                    _HARMONY_FOLDERS,
                ),
                _form(
                    "hs/17654c10-92f1-4dfd-98aa-6a01bbd77557/images/r03c07/r03c07f01p01-ch01t01.tiff",
                    rf"{_HARMONY}-(?P<channel>ch[0-9]+)t(?P<time>[0-9]+)",
                    _HARMONY_FOLDERS,
                ),
            ),
            alike=_pattern(r"r[0-9]{2,}c[0-9]{2,}f[0-9]{2,}p[0-9]{2,}.*"),
            write=writers.write_operetta,
            channels=("ch1", "ch2", "ch3", "ch4"),
        ),
        # The second form is that of IN Cell 7.2 on, where one may choose it.
        Scheme(
            "incell",
            "Cytiva (GE) IN Cell Analyzer",
            (
                _form(
                    "A - 01(fld 1 wv DAPI - DAPI).tif",
                    r"(?:[^/]*_)?(?P<row>[A-Z]{1,2}) - 0?(?P<column>[0-9]{1,2})\(fld (?P<site>[0-9]+)"
                    r"(?: wv (?P<channel>[^/]+?))?(?: z (?P<z>[0-9]+))?"
                    r"(?: ?-? ?time (?P<time>[0-9]+) - [0-9]+ ?ms)?\)",
                ),
                _form(
                    "A_01_f2_c1_xUV_mDAPI_z3_t2.tif",
                    r"(?:[^/]*_)?(?P<row>[A-Z]{1,2})_(?P<column>[0-9]{1,2})_f(?P<site>[0-9]+)"
                    r"_(?P<channel>c[0-9]+_x[^/]+?_m[^/]+?)_z(?P<z>[0-9]+)_t(?P<time>[0-9]+)",
                ),
            ),
            write=writers.write_incell,
            channels=("DAPI - DAPI", "FITC - FITC", "Cy3 - Cy3", "Cy5 - Cy5"),
        ),
        # The well's name stands before its number where the plate's layout gives it one.
        Scheme(
            "scanr",
            "Evident (Olympus) scanR",
            (
                _form(
                    "data/A1--W00001--P00001--Z00000--T00000--DAPI.tif",
                    rf"(?:(?:[^/]*[^A-Z0-9/])?{_WELL}|[^/]*?)--W(?P<number>[0-9]{{5}})--P(?P<site>[0-9]{{5}})"
                    r"--Z(?P<z>[0-9]{5})--T(?P<time>[0-9]{5})--(?P<channel>[^/]+?)",
                    "(?:data/)?",
                ),
            ),
            write=writers.write_scanr,
            channels=("DAPI", "GFP", "Cy3", "Cy5"),
        ),
        # The three ways of saving: separate files of Micro-Manager 2, of 1.4, and one stack a position.
        Scheme(
            "micromanager",
            "Micro-Manager",
            (
                _form(
                    "A1-Site_0/img_channel000_position000_time000000000_z000.tif",
                    r"img_(?P<channel>channel[0-9]{3,})_position(?P<position>[0-9]{3,})_time(?P<time>[0-9]{9,})"
                    r"_z(?P<z>[0-9]{3,})",
                    # Users label positions as they like; a plain number says no more than the file's name does.
                    rf"(?:(?:{_WELL}-Site_(?P<site>[0-9]+)|Pos_?(?:[0-9]{{3}}_[0-9]{{3}}|[0-9]+)|Default"
                    r"|(?P<label>[^/]+))/)?",
                ),
                _form(
                    "Pos0/img_000000000_DAPI_000.tif",
                    r"img_(?P<time>[0-9]{9,})_(?P<channel>[^/]+)_(?P<z>[0-9]{3,})",
                    rf"(?:(?:{_POSITION}|Default)/)?",
                ),
                _form(
                    "Screen_1_MMStack_A1-Site_0.ome.tif",
                    rf"(?:[^/]+_)?MMStack_(?:{_POSITION}|Default)\.ome",
                ),
            ),
            write=writers.write_micromanager,
            channels=("channel000", "channel001", "channel002", "channel003"),
        ),
        Scheme(
            "cellomics",
            "Thermo Fisher Cellomics ArrayScan and CellInsight, CellProfiler's ExampleHuman, BBBC008",
            (
                _form(
                    "AS_09125_050116030001_D03f00d0.tif",
                    rf"(?:[^/]*_)?{_WELL}f(?P<site>[0-9]{{1,3}})(?P<channel>d[0-9]{{1,2}})",
                ),
            ),
            write=writers.write_cellomics,
            channels=("d0", "d1", "d2", "d3"),
        ),
        Scheme(
            "folders",
            "folders plate/well/site, with a file a channel, or plate/well with a file a site",
            (
                _form(
                    "Plate/B02/1/DAPI.tif",
                    r"(?P<channel>[^/]+)",
                    rf"(?:well[-_ ]?)?{_WELL}/{_SITE_WORD}(?P<site>[0-9]{{1,4}})/",
                ),
                _form(
                    "Plate/B02/1.tif",
                    rf"{_SITE_WORD}(?P<site>[0-9]{{1,4}})(?:_(?P<channel>[A-Z][^/]*))?",
                    rf"(?:well[-_ ]?)?{_WELL}/",
                ),
            ),
            write=writers.write_folders,
            channels=("DAPI", "GFP", "RFP", "Cy5"),
            general=True,
        ),
        IMAGES,
    )
}
