"""The page about plates says what the code does."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

from nucseg_ray.plates.scheme_table import scheme_table
from nucseg_ray.plates.schemes import SCHEMES
from nucseg_ray.plates.user_scheme import PREFIX, scheme_named

PAGE = Path(__file__).resolve().parents[2] / "docs" / "plates.md"


def test_the_page_has_the_table_of_the_code() -> None:
    page = PAGE.read_text(encoding="utf-8")
    script = runpy.run_path(str(PAGE.parent / "write_tables.py"))
    assert page.count(script["BEGIN"]) == page.count(script["END"]) == 1
    assert script["with_table"](page) == page, "run: python docs/write_tables.py"
    for name, scheme in SCHEMES.items():
        assert f"| `{name}` | {scheme.instrument} | " in page
        assert all(f"`{form.example}`" in page for form in scheme.forms)
    assert (
        "\n|  |  | `Pos0/img_000000000_DAPI_000.tif` | site 0, time point 0, z 0, channel `DAPI` |\n" in scheme_table()
    )


def test_the_pattern_of_the_page_reads_the_name_of_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    (pattern,) = re.findall(rf"--scheme '({PREFIX}.*\(.*)'\n", page)
    (name,) = re.findall(r"`(SIMCEP\S+)`", page)
    found = scheme_named(pattern).parse(name)
    assert found is not None
    assert (found.well, found.site, found.channel) == ("A01", "1", "w1")
