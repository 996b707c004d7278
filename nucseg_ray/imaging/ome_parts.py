"""Which planes of a set of OME-TIFF files lie in one of them, by the OME-XML that it carries itself.

A set tells in every file, or in each but those that name another one's metadata, which plane lies where (``TiffData``
with a ``UUID``); see the OME-TIFF specification, "Distributed datasets". The other files are never opened.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from xml.etree import ElementTree

from nucseg_ray.imaging.tiff_metadata import ome_names, told_apart

# A plane by the number of its image, T, C and Z.
_Place = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class OwnPart:
    """The planes that a file holds of one image: ``pages``, channel by channel and the lowest first.

    ``channels`` are the names of these channels, each empty where it has none.
    """

    channels: tuple[str, ...]
    n_z: int
    pages: tuple[int, ...]


def own_part(description: str, *, file_name: str, n_pages: int) -> OwnPart | None:
    """Find the planes that OME-XML says are in the file that carries it.

    None where it does not say, or not of every page, where they are of several images or time points, or not all planes
    of each channel that it has: others are in files that are never opened.
    """
    try:
        root = ElementTree.fromstring(description)
    except ElementTree.ParseError:
        return None
    found = dict(_own_pages(root, file_name.casefold()))
    images, times, channels, heights = (sorted({place[axis] for place in found}) for axis in range(4))
    if len(images) != 1 or len(times) != 1 or sorted(found.values()) != list(range(n_pages)):
        return None
    (pixels,) = list(root.iterfind("{*}Image/{*}Pixels"))[images[0] : images[0] + 1]
    if heights != list(range(int(pixels.get("SizeZ", "1")))):
        return None
    pages = [found.get((images[0], times[0], c, z)) for c, z in product(channels, heights)]
    if None in pages:
        return None
    names = dict(enumerate(told_apart(ome_names(pixels))))
    return OwnPart(
        channels=tuple(names.get(number, "") for number in channels),
        n_z=len(heights),
        pages=tuple(page for page in pages if page is not None),
    )


def _own_pages(root: ElementTree.Element, file_name: str) -> Iterator[tuple[_Place, int]]:
    """Give each plane that lies in this file, and its page."""
    for image, pixels in enumerate(root.iterfind("{*}Image/{*}Pixels")):
        order = pixels.get("DimensionOrder", "XYZCT")[2:]
        sizes = {axis: int(pixels.get(f"Size{axis}", "1")) for axis in "TCZ"}
        for data in pixels.iterfind("{*}TiffData"):
            uuid = data.find("{*}UUID")
            if uuid is None or not _is_own(uuid, root, file_name):
                continue
            first = {axis: int(data.get(f"First{axis}", "0")) for axis in "TCZ"}
            page = int(data.get("IFD", "0"))
            for step in range(int(data.get("PlaneCount", "1"))):
                place = _stepped(first, sizes, order, step)
                yield (image, place["T"], place["C"], place["Z"]), page + step


def _is_own(uuid: ElementTree.Element, root: ElementTree.Element, file_name: str) -> bool:
    """Compare by name or identity: files are renamed, and programs forget to give the file its own identity."""
    named = uuid.get("FileName", "").rpartition("/")[2].casefold()
    return named == file_name or (bool(uuid.text) and uuid.text == root.get("UUID"))


def _stepped(first: Mapping[str, int], sizes: Mapping[str, int], order: str, step: int) -> dict[str, int]:
    """Go so many planes on from the first, along the axis that changes fastest, then along the next."""
    place = {}
    for axis in order:
        step, place[axis] = divmod(first[axis] + step, sizes[axis])
    return place
