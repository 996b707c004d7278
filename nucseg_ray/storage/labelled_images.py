"""What a set of labelled images is, whichever way it lies on disk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from nucseg_ray.storage.locations import Location

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled image: where its files are (see :func:`locate`), and what is known about it.

    With several ``masks`` each is one nucleus; a single one holds all nuclei of the image where ``one_mask`` is set.
    In a packed set ``image`` is the part that holds the image and its labels. ``group`` names images that must stay on
    one side of a split, such as crops of one picture; by default the image itself. ``named_in`` is the row of the
    manifest that names the files, for messages; empty where they were found in a folder.
    """

    image_id: str
    image: str
    masks: tuple[str, ...]
    one_mask: bool
    group: str
    kind: str = "image"
    fold: int | None = None
    named_in: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a packed set, as it must be found."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Labelled images, sorted by id; ``layout`` says in words how they were understood.

    ``parts`` are the files of a packed set; without them each sample has files of its own.
    """

    root: Location
    layout: str
    samples: tuple[Sample, ...]
    parts: tuple[Part, ...] = ()

    def only(self, samples: Iterable[Sample]) -> TrainingSet:
        """Give the same set with some of its samples."""
        return replace(self, samples=tuple(samples))


def locate(root: Location, path: str) -> Location:
    """Give the place of a sample's file: paths are relative to the set's root, a manifest's also absolute, or URIs."""
    # No relative path has an empty level, so "://" is never part of one.
    anywhere = path.startswith("/") or "://" in path
    return Location(path) if anywhere else root / path


def examples(names: Sequence[str]) -> str:
    """Give some of the names for a message, in brackets."""
    return f" (such as {', '.join(names[:_SHOWN])})" if names else ""
