"""What lies in a folder: fresh, complete, sorted."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from nucseg_ray.errors import InputError, MissingInputError
from nucseg_ray.storage.locations import Location


def list_files(location: Location) -> list[tuple[str, int]]:
    """List every file below a folder as (path relative to it, size in bytes), sorted by path.

    Files and folders whose name begins with a dot are left out. Links to folders are followed, except those that
    lead back to a folder above them.

    Raises
    ------
    MissingInputError
        If the folder does not exist; names the closest name beside it.
    InputError
        If it is a file, or if any part of it cannot be listed: a part left out would be sites lost in silence.
    """
    found = find_files(location)
    if found:
        return found
    if location.is_local and Path(location.path).is_dir():
        return []
    raise MissingInputError(f"{location}: expected a folder with files, found nothing there.{_closest(location)}")


def find_files(location: Location) -> list[tuple[str, int]]:
    """List like ``list_files``; a folder that is not there is an empty one."""
    found = sorted(_walk(location.path) if location.is_local else _find(location))
    for name, _ in found:
        try:
            name.encode()
        except UnicodeEncodeError:  # tables hold UTF-8 only
            raise InputError(f"{location}: expected names in UTF-8, found {name!a}. Rename it.") from None
    return found


def list_folders(location: Location) -> list[str]:
    """List the names of the folders directly below a folder, sorted; none where it is not there."""
    try:
        location.fs.invalidate_cache(location.path)
        entries = location.fs.ls(location.path, detail=True)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except Exception as error:
        raise InputError(f"{location}: cannot be listed: {error}. Check the permissions.") from error
    return sorted(entry["name"].rstrip("/").rsplit("/", 1)[-1] for entry in entries if entry["type"] == "directory")


def _walk(root: str) -> list[tuple[str, int]]:
    """List a local folder. fsspec would skip unreadable folders in silence and walk down hidden ones."""
    found: list[tuple[str, int]] = []
    pending = [""]
    while pending:
        below = pending.pop()
        folder = f"{root}/{below}"
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if not entry.is_dir():
                        found.append((below + entry.name, _size(entry)))
                    elif not (entry.is_symlink() and _leads_back(entry.path, folder)):
                        pending.append(f"{below}{entry.name}/")
        except FileNotFoundError:
            if below:
                raise InputError(
                    f"{folder}: vanished while it was listed. Run again when nothing changes it."
                ) from None
        except NotADirectoryError:
            raise InputError(f"{root}: expected a folder, found a file. Name the folder that holds it.") from None
        except OSError as error:
            raise InputError(f"{folder}: cannot be listed ({error.strerror}). Check the permissions.") from error
    return found


def _size(entry: os.DirEntry[str]) -> int:
    """Return the size in bytes; 0 for a link that leads nowhere (reading it fails later, as a row)."""
    try:
        return entry.stat().st_size
    except FileNotFoundError:
        return 0


def _leads_back(link: str, folder: str) -> bool:
    """Tell whether a link leads to a folder that holds it, so that following it would never end."""
    target = os.path.realpath(link)
    return os.path.commonpath([target, os.path.realpath(folder)]) == target


def _find(location: Location) -> list[tuple[str, int]]:
    """List a remote folder."""
    fs, path = location.fs, location.path
    try:
        fs.invalidate_cache(path)
        entries = fs.find(path, detail=True)
    except FileNotFoundError:
        return []
    except Exception as error:  # the stores' clients have no common class of error
        raise InputError(f"{location}: cannot be listed: {error}. Check the address and the credentials.") from error
    if list(entries) == [path]:
        if entries[path]["type"] == "directory":  # empty when it was listed, and written to before it was looked at
            return _find(location)
        raise InputError(f"{location}: expected a folder, found a file. Name the folder that holds it.")
    prefix = path.rstrip("/") + "/"
    files = ((name[len(prefix) :], info) for name, info in entries.items() if name.startswith(prefix))
    return [
        (name, int(info["size"] or 0))
        for name, info in files
        if info["type"] == "file" and name and not any(level.startswith(".") for level in name.split("/"))
    ]


def _closest(location: Location) -> str:
    """Return a sentence with the name beside ``location`` that is most like it, or nothing."""
    try:
        siblings = list_folders(location.parent)
    except InputError:
        return ""
    close = difflib.get_close_matches(location.name, siblings, n=1, cutoff=0.5)
    return f" Did you mean {location.parent / close[0]}?" if close else " Check the path."
