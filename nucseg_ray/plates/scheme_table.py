"""The table of naming schemes in docs/plates.md, made of their examples."""

from __future__ import annotations

from collections.abc import Iterator

from nucseg_ray.plates.naming import Form, Scheme
from nucseg_ray.plates.schemes import SCHEMES


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
