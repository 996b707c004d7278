"""Tells of plates whose images differ in size or type: fine for the network, and often not what was meant."""

from __future__ import annotations

import logging
from collections.abc import Mapping

PLATES_TOLD = 3
logger = logging.getLogger(__name__)


class MixedImages:
    """Takes the looks of the images of a run, part by part, and warns once a plate, of the first few plates."""

    def __init__(self) -> None:
        self._looks: dict[str, dict[str, str]] = {}
        self._told: set[str] = set()

    def add(self, plate: str, looks: Mapping[str, str]) -> None:
        """Take the sizes and types of some images of a plate, each with a file that is so."""
        known = self._looks.setdefault(plate, {})
        for look, file in looks.items():
            known.setdefault(look, file)
        if len(known) > 1 and plate not in self._told and len(self._told) < PLATES_TOLD:
            self._told.add(plate)
            (one, first), (other, second), *_ = known.items()
            logger.warning(
                "plate %s: its images differ: %s is %s, %s is %s; each is segmented as it is. If they do not belong "
                "together, move one kind away and run again with --overwrite%s",
                plate,
                first,
                one,
                second,
                other,
                ". Further plates are not told of" if len(self._told) == PLATES_TOLD else "",
            )
