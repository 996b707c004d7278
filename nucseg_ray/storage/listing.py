"""What lies in a folder: fresh, complete, sorted."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from nucseg_ray.errors import InputError, MissingInputError
from nucseg_ray.storage.locations import Location


class ListedFile(NamedTuple):
    """A file below a folder: its path relative to it, its size in bytes, and when it changed last (epoch seconds).

    `changed_s` is 0 where the store does not tell. A local file changes also when it is put there: copies that keep the
    date of what they were made from are as young as they are.
    """

    path: str
    size: int
    changed_s: float


def list_files(location: Location) -> list[tuple[str, int]]:
    """List every file below a folder as (path relative to it, size in bytes), sorted by path; like ``walk_files``."""
    return sorted((file.path, file.size) for file in walk_files(location))


def walk_files(location: Location) -> Iterator[ListedFile]:
    """Give every file below a folder as soon as it is found, in no order.

    Files and folders whose name begins with a dot are left out. Links to folders are followed, except those that
    lead back to a folder above them.

    Raises
    ------
    MissingInputError
        If the folder does not exist; names the closest name beside it.
    InputError
        If it is a file, or if any part of it cannot be listed: a part left out would be sites lost in silence.
    """
    is_empty = True
    for file in _found(location):
        is_empty = False
        yield file
    if is_empty and not (location.is_local and Path(location.path).is_dir()):
        raise MissingInputError(f"{location}: expected a folder with files, found nothing there.{_closest(location)}")


def find_files(location: Location) -> list[tuple[str, int]]:
    """List like ``list_files``; a folder that is not there is an empty one."""
    return sorted((file.path, file.size) for file in _found(location))


def _found(location: Location) -> Iterator[ListedFile]:
    for file in _walk(location.path) if location.is_local else _find(location):
        try:
            file.path.encode()
        except UnicodeEncodeError:  # tables hold UTF-8 only
            raise InputError(f"{location}: expected names in UTF-8, found {file.path!a}. Rename it.") from None
        yield file


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


def _walk(root: str) -> Iterator[ListedFile]:
    """List a local folder. fsspec would skip unreadable folders in silence and walk down hidden ones."""
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
                        yield ListedFile(below + entry.name, *_state(entry))
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


def _state(entry: os.DirEntry[str]) -> tuple[int, float]:
    """Return size and time of change; zeros for a link that leads nowhere (reading it fails later, as a row)."""
    try:
        state = entry.stat()
    except FileNotFoundError:
        return 0, 0.0
    return state.st_size, max(state.st_mtime, state.st_ctime)


def _leads_back(link: str, folder: str) -> bool:
    """Tell whether a link leads to a folder that holds it, so that following it would never end."""
    target = os.path.realpath(link)
    return os.path.commonpath([target, os.path.realpath(folder)]) == target


def _find(location: Location) -> Iterator[ListedFile]:
    """List a remote folder."""
    fs, path = location.fs, location.path
    is_empty, is_file = True, False
    try:
        for file in _pages(fs, path) if hasattr(fs, "call_s3") else _at_once(fs, path):
            if not any(level.startswith(".") for level in file.path.split("/")):
                is_empty = False
                yield file
        is_file = is_empty and fs.isfile(path)
    except FileNotFoundError as error:
        if not is_empty:
            raise InputError(f"{location}: vanished while it was listed. Run again when nothing changes it.") from error
    except Exception as error:  # the stores' clients have no common class of error
        raise InputError(f"{location}: cannot be listed: {error}. Check the address and the credentials.") from error
    if is_file:
        raise InputError(f"{location}: expected a folder, found a file. Name the folder that holds it.")


def _pages(fs: Any, path: str) -> Iterator[ListedFile]:
    """List a folder of S3 a thousand names at a time: s3fs would keep a kilobyte of each file until the last."""
    bucket, key, _ = fs.split_path(path)
    prefix = f"{key.rstrip('/')}/" if key else ""
    request = {"Bucket": bucket, "Prefix": prefix}
    while True:
        page = fs.call_s3("list_objects_v2", **request)
        for entry in page.get("Contents", ()):
            name = entry["Key"][len(prefix) :]
            if name and not name.endswith("/"):  # a name that ends so is a mark for an empty folder
                yield ListedFile(name, entry["Size"], entry["LastModified"].timestamp())
        if not page.get("IsTruncated"):
            return
        request["ContinuationToken"] = page["NextContinuationToken"]


def _at_once(fs: Any, path: str) -> Iterator[ListedFile]:
    """List a folder of any other store."""
    fs.invalidate_cache(path)
    prefix = path.rstrip("/") + "/"
    for name, info in fs.find(path, detail=True).items():
        if info["type"] == "file" and name.startswith(prefix) and name != prefix:
            yield ListedFile(name[len(prefix) :], int(info["size"] or 0), _changed(info))


def _changed(info: dict[str, Any]) -> float:
    """Return when a file of a store changed: clients name the time in their own ways."""
    told: Iterable[Any] = (info.get(name) for name in ("LastModified", "last_modified", "mtime", "updated", "created"))
    time = next((value for value in told if value is not None), 0.0)
    if isinstance(time, datetime):
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    return float(time) if isinstance(time, (int, float)) else 0.0


def _closest(location: Location) -> str:
    """Return a sentence with the name beside ``location`` that is most like it, or nothing."""
    try:
        siblings = list_folders(location.parent)
    except InputError:
        return ""
    close = difflib.get_close_matches(location.name, siblings, n=1, cutoff=0.5)
    return f" Did you mean {location.parent / close[0]}?" if close else " Check the path."
