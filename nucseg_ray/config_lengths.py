"""Lengths as text, for the settings: auto, a number of pixels, or micrometres. One length is one text.

So a rerun with 24.0 goes on with what was made with 24.
"""

from __future__ import annotations

import math
import re
from typing import Annotated

from pydantic import AfterValidator


def _is_above_0(text: str) -> bool:
    try:
        return 0 < float(text) < math.inf
    except ValueError:
        return False


def _check_diameter(value: str) -> str:
    if value != AUTO and not _is_above_0(value):
        raise ValueError("expected auto, or a number of pixels above 0 such as 24")
    return value if value == AUTO else f"{float(value):g}"


def _check_any_diameter(value: str) -> str:
    number, unit = _with_unit(value)
    if value != AUTO and not _is_above_0(number):
        raise ValueError("expected auto, a number of pixels above 0 such as 24, or micrometres such as 10um")
    return value if value == AUTO else f"{float(number):g}{unit}"


def _check_size(value: str) -> str:
    if value != AUTO and not _is_above_0(value):
        raise ValueError("expected auto, or micrometres above 0 such as 0.65")
    return value if value == AUTO else f"{float(value):g}"


def _with_unit(text: str) -> tuple[str, str]:
    """Split off the unit of micrometres, in any of its spellings."""
    number = re.sub(r"\s*[uµμ]m$", "", text)
    return number, "" if number == text else "um"


AUTO = "auto"
DiameterText = Annotated[str, AfterValidator(_check_diameter), "auto|NUMBER"]
AnyDiameterText = Annotated[str, AfterValidator(_check_any_diameter), "auto|NUMBER|NUMBERum"]
SizeText = Annotated[str, AfterValidator(_check_size), "auto|X"]


def as_diameter(text: str) -> float | None:
    """Give the diameter, in pixels, that a setting names; None where it is to be found, or is in micrometres."""
    return None if text == AUTO or _with_unit(text)[1] else float(text)


def as_diameter_um(text: str) -> float | None:
    """Give the diameter, in micrometres, that a setting of ``AnyDiameterText`` names; None where it names none."""
    number, unit = _with_unit(text)
    return float(number) if unit else None


def as_size(text: str) -> float | None:
    """Give the size that a setting of ``SizeText`` names; None where it is to be found."""
    return None if text == AUTO else float(text)
