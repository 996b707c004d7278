"""What ``--illumination`` names, looked for before a run begins; no function is read yet."""

from __future__ import annotations

import pyarrow.compute as pc

from nucseg_ray.config_predict import ESTIMATE, NO_ILLUMINATION
from nucseg_ray.errors import UsageError
from nucseg_ray.plates.examples import closest
from nucseg_ray.plates.planning import Plan
from nucseg_ray.storage.illuminations import Illuminations
from nucseg_ray.storage.locations import Location


def check_given(choice: str, planned: Plan) -> None:
    """Check that there is a function for each plate that a run is to segment.

    Raises
    ------
    UsageError
        There is neither a file nor a folder, or the folder lacks a plate.
    """
    if choice in (NO_ILLUMINATION, ESTIMATE):
        return
    place = Location(choice)
    if place.fs.isfile(place.path):
        return
    if not place.fs.isdir(place.path):
        raise UsageError(
            f"--illumination {choice}: found nothing there{closest(choice, (NO_ILLUMINATION, ESTIMATE))}: expected "
            f"{NO_ILLUMINATION}, {ESTIMATE}, an illumination function (TIFF, .npy), or a folder such as "
            "OUT/illumination. Correct it."
        )
    lights = Illuminations(place)
    for plate in pc.unique(planned.manifest.column("plate")).to_pylist():
        if not lights.holds(plate, planned.channel):
            raise UsageError(
                f"--illumination {choice}: has no function for plate {plate}: expected "
                f"{lights.file(plate, planned.channel)}. Give the file of one plate for all of them, or the plates one "
                "by one."
            )
