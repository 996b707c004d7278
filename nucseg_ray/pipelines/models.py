"""Models from anywhere: a bundle at any URI becomes a local folder, on the driver and in the actors of every node."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from nucseg_ray.errors import InputError, MissingInputError, ModelError
from nucseg_ray.model.bundle import FORMS, MODEL_JSON, WEIGHTS, Bundle, read_bundle
from nucseg_ray.model.pretrained import PRETRAINED, pretrained_folder
from nucseg_ray.storage.fetch import fetch_bytes, fetch_many
from nucseg_ray.storage.locations import Location

# Where this process unpacked which bundle, by fingerprint.
_unpacked: dict[str, Path] = {}


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The files of a bundle in Ray's object store: picklable, so that actors need no folder shared between nodes.

    ``contents`` refers to the bytes by file name. A node fetches them once, however many actors it has.
    """

    fingerprint: str
    contents: Any

    def folder(self) -> Path:
        """Give a local folder that holds the bundle; unpacked once in a process."""
        if self.fingerprint not in _unpacked:
            folder = _temporary_folder()
            for name, content in ray.get(self.contents).items():
                (folder / name).write_bytes(content)
            _unpacked[self.fingerprint] = folder
        return _unpacked[self.fingerprint]

    def discard(self) -> None:
        """Remove what :meth:`folder` unpacked here: a process that Ray kills does not tidy up at its end."""
        folder = _unpacked.pop(self.fingerprint, None)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def fetch_bundle(named: str) -> tuple[Bundle, ModelFiles]:
    """Read a bundle as :func:`local_bundle`, and put its files where every actor has them. Ray must be running.

    ``bundle.folder`` is a local folder, also where the bundle came from elsewhere; it lasts as long as this process.

    Raises
    ------
    MissingInputError, ModelError, InputError
        There is no bundle there, it is not in order, or it cannot be fetched; the message names the URI.
    """
    bundle = local_bundle(named)
    return bundle, ship(bundle)


def local_bundle(named: str) -> Bundle:
    """Read a bundle from a local folder or any URI; ``pretrained`` is the one that comes with the package.

    Raises
    ------
    MissingInputError, ModelError, InputError
        There is no bundle there, it is not in order, or it cannot be fetched; the message names the URI.
    """
    if named == PRETRAINED:
        return read_bundle(pretrained_folder())
    location = Location(named)
    return read_bundle(Path(location.path)) if location.is_local else _downloaded(location)


def holds_bundle(location: Location) -> bool:
    """Tell whether there is a bundle, in order or not; a file holds none."""
    model_json = location / MODEL_JSON
    return bool(model_json.fs.exists(model_json.path))


def ship(bundle: Bundle) -> ModelFiles:
    """Put the files of a bundle that lies in a local folder into the object store."""
    names = bundle.file_names
    return ModelFiles(bundle.fingerprint, ray.put({name: (bundle.folder / name).read_bytes() for name in names}))


def _downloaded(location: Location) -> Bundle:
    try:
        stored = fetch_bytes(location / MODEL_JSON)
    except MissingInputError as error:
        raise MissingInputError(
            f"{location}: no model bundle there (expected a folder with {MODEL_JSON} in it)"
        ) from error
    folder = _temporary_folder()
    (folder / MODEL_JSON).write_bytes(stored)
    names = _named_files(stored)
    for name, content in zip(names, fetch_many(location, names), strict=True):
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        elif not isinstance(content, MissingInputError):  # what is missing, the check of the bundle says
            raise content
    try:
        return read_bundle(folder)
    except (InputError, ModelError) as error:
        raise type(error)(str(error).replace(str(folder), location.uri)) from error


def _named_files(model_json: bytes) -> list[str]:
    """Give the files that a ``model.json`` names, of those that a bundle may have; whether it is right, others say."""
    try:
        files = json.loads(model_json)["files"]
    except (ValueError, KeyError, TypeError):
        return []
    known = (WEIGHTS, *(name for names in FORMS.values() for name in names))
    return [name for name in known if isinstance(files, dict) and name in files]


def _temporary_folder() -> Path:
    folder = tempfile.mkdtemp(prefix="nucseg_ray-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
