"""Which files of a folder are still being written: those that are young, new, or that grow between two looks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from nucseg_ray.storage.listing import ListedFile, list_dated
from nucseg_ray.storage.locations import Location

BETWEEN_LOOKS_S = 1.0


@dataclass(frozen=True, slots=True)
class Look:
    """A listing, the files of it that are not to be read yet, and how many changed within the last minute."""

    files: tuple[ListedFile, ...]
    unsettled: frozenset[str]
    recent: int


def look_at(location: Location, *, settle_s: float) -> Look:
    """List a folder; with `settle_s` above 0 twice, and find the files that have been as they are for less than that.

    Raises like `list_dated`.
    """
    began = time.monotonic()
    first = list_dated(location)
    if settle_s <= 0:
        return Look(tuple(first), frozenset(), len(young(first, now_s=time.time(), age_s=60.0)))
    time.sleep(max(0.0, BETWEEN_LOOKS_S - (time.monotonic() - began)))
    second = list_dated(location)
    now_s = time.time()
    changing = young(second, now_s=now_s, age_s=settle_s) | changed_between(first, second)
    return Look(tuple(second), frozenset(changing), len(young(second, now_s=now_s, age_s=60.0)))


def young(files: Sequence[ListedFile], *, now_s: float, age_s: float) -> set[str]:
    """Return the files that changed less than `age_s` seconds ago; a time to come counts as now."""
    return {file.path for file in files if file.changed_s > now_s - age_s}


def changed_between(first: Sequence[ListedFile], second: Sequence[ListedFile]) -> set[str]:
    """Return the files of the second look that the first did not find so: new, of another size, or written anew.

    A file server's clock may be behind: what is being written then looks old, but it changes.
    """
    return {file.path for file in set(second).difference(first)}
