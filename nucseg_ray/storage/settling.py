"""Which files of a folder are still being written: those that are young, new, or that grow between two looks.

The age of a file is by the clock of its server, so a server that is behind makes files look older than they are. What
it is writing is then noticed only where it changes something between the two looks.
"""

from __future__ import annotations

import time
from array import array
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nucseg_ray.storage.listing import walk_files
from nucseg_ray.storage.locations import Location

BETWEEN_LOOKS_S = 2.0
# A folder in which nothing is younger than this is not looked at twice, unless that is asked for.
RECENT_S = 10.0
# Once something is seen to change, this is how old files have to be.
SETTLE_S = 60.0


@dataclass(frozen=True, slots=True)
class Look:
    """The paths of a listing, in no order, and those of them that are not to be read yet.

    `unsettled` is None where all is to be taken as it is, else files have to be `settle_s` old.
    """

    paths: list[str]
    unsettled: frozenset[str] | None = None
    settle_s: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class _Listing:
    """What two looks are compared by: 16 bytes a file beside its path, for there may be a million."""

    began_s: float
    paths: list[str]
    changed_s: NDArray[np.float64]
    states: NDArray[np.int64]

    def is_young(self, age_s: float) -> NDArray[np.bool_]:
        """Tell which files had not been as they are for `age_s` seconds when the listing began."""
        return self.changed_s > self.began_s - age_s


def look_at(location: Location, *, settle_s: float | None) -> Look:
    """List a folder, and find the files that have been as they are for less than `settle_s` seconds.

    None: for less than `SETTLE_S`, where something changes while it is looked at, else all are taken as they are. So a
    finished plate that was copied a moment ago need not wait. Raises like `walk_files`.
    """
    first = _listed(location)
    if settle_s == 0 or (settle_s is None and not first.is_young(RECENT_S).any()):
        return Look(first.paths)
    before = first.states
    del first  # its paths are half of what two looks hold
    time.sleep(BETWEEN_LOOKS_S)
    second = _listed(location)
    changed = ~np.isin(second.states, before)
    if settle_s is None:
        if not changed.any():
            return Look(second.paths)
        settle_s = SETTLE_S
    unsettled = np.flatnonzero(changed | second.is_young(settle_s))
    return Look(second.paths, frozenset(second.paths[place] for place in unsettled), settle_s)


def _listed(location: Location) -> _Listing:
    began_s = time.time()
    paths: list[str] = []
    changed_s, states = array("d"), array("q")
    for file in walk_files(location):
        paths.append(file.path)
        changed_s.append(file.changed_s)
        states.append(hash(file))
    return _Listing(began_s, paths, np.frombuffer(changed_s, np.float64), np.frombuffer(states, np.int64))
