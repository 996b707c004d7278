"""The table of naming schemes in docs/plates.md; `python -m nucseg_ray.plates.scheme_table` writes it anew."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from nucseg_ray.plates.naming import Form, Scheme
from nucseg_ray.plates.schemes import SCHEMES

BEGIN, END = "<!-- made by nucseg_ray.plates.scheme_table -->", "<!-- end of the table -->"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "plates.md"


def scheme_table() -> str:
    """Return the table in Markdown: a row for each form of each scheme, its meaning read from its example."""
    lines = [
        "| `--scheme` | instrument or software | a file | is read as |",
        "|---|---|---|---|",
    ]
    for scheme in SCHEMES.values():
        for number, form in enumerate(scheme.forms):
            first = (f"`{scheme.name}`", scheme.instrument) if number == 0 else ("", "")
            lines.append(f"| {first[0]} | {first[1]} | `{form.example}` | {', '.join(_meaning(scheme, form))} |")
    return "\n".join(lines)


def with_table(page: str) -> str:
    """Return a page with the table between its two marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{scheme_table()}\n{END}{after}"


def _meaning(scheme: Scheme, form: Form) -> Iterator[str]:
    name = scheme.parse(form.example)
    if name is None:
        raise RuntimeError(f"the scheme {scheme.name!r} does not read its own example {form.example!r}")
    yield from (f"plate {name.plate}",) if name.plate else ()
    yield from (f"well {name.well}",) if name.well else ()
    yield f"site {name.site}"
    yield from (f"time point {name.timepoint}",) if name.timepoint is not None else ()
    yield from (f"z {name.z}",) if name.z is not None else ()
    yield from (f"channel `{name.channel}`",) if name.channel else ()


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")
