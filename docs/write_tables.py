"""Writes the tables of these pages that are made from the code: ``python docs/write_tables.py``."""

from __future__ import annotations

from pathlib import Path

from nucseg_ray.plates.scheme_table import scheme_table

BEGIN, END = "<!-- made by docs/write_tables.py -->", "<!-- end of the table -->"
PAGE = Path(__file__).resolve().parent / "plates.md"


def with_table(page: str) -> str:
    """Return a page with the table of schemes between its two marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{scheme_table()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
