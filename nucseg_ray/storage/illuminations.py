"""Illumination functions as files: ``plate=<plate>/<channel>.tif`` below a folder, as in a run's output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from nucseg_ray.imaging.illumination import Illumination, decode_illumination, encode_illumination
from nucseg_ray.storage.atomic import write_bytes
from nucseg_ray.storage.fetch import fetch_bytes
from nucseg_ray.storage.locations import Location

# Where names tell no channels apart.
ONLY_CHANNEL = "image"


@dataclass(frozen=True, slots=True)
class Illuminations:
    """A folder of functions; picklable, so that each worker reads for itself those of the plates it sees.

    What was read last is kept. Another ``generation`` reads anew: a process outlives a run, and the next one may have
    begun afresh in the same folder.
    """

    folder: Location
    generation: str = ""

    def file(self, plate: str, channel: str) -> Location:
        """Give the file of a plate's channel; a name may hold any character."""
        return self.folder / f"plate={quote(plate, safe='')}" / f"{quote(channel, safe='') or ONLY_CHANNEL}.tif"

    def of(self, plate: str, channel: str) -> Illumination:
        """Read the function of a plate's channel.

        Raises
        ------
        MissingInputError, InputError, DecodeError
            There is none, it cannot be fetched, or it is none.
        """
        return _kept(self.file(plate, channel), self.generation)

    def holds(self, plate: str, channel: str) -> bool:
        """Tell whether there is one; looks anew each time."""
        file = self.file(plate, channel)
        return bool(file.fs.exists(file.path))

    def write(self, plate: str, channel: str, illumination: Illumination, *, note: Mapping[str, Any]) -> None:
        """Write one, whole or not at all; raises ``OutputError``."""
        data = encode_illumination(illumination, note={"plate": plate, "channel": channel, **note})
        write_bytes(self.file(plate, channel), data, durable=True)


def read_illumination(file: Location) -> Illumination:
    """Read one function from anywhere.

    Raises
    ------
    MissingInputError, InputError, DecodeError
        There is none, it cannot be fetched, or it is none.
    """
    return decode_illumination(fetch_bytes(file), name=str(file))


@lru_cache(maxsize=2)
def _kept(file: Location, generation: str) -> Illumination:
    return read_illumination(file)
