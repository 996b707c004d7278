"""Reading whole files, many at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from nucseg_ray.errors import InputError, MissingInputError
from nucseg_ray.storage.locations import Location


def fetch_bytes(location: Location) -> bytes:
    """Read one file.

    Raises
    ------
    MissingInputError
        If it is not there.
    InputError
        If it cannot be read; ``__cause__`` is what the filesystem said.
    """
    try:
        return bytes(location.fs.cat_file(location.path))
    except FileNotFoundError as error:
        raise MissingInputError(f"{location}: expected a file, found none. Check the path.") from error
    except IsADirectoryError as error:
        raise InputError(f"{location}: expected a file, found a folder. Name a file in it.") from error
    except PermissionError as error:
        raise InputError(f"{location}: may not be read ({error.strerror or error}). Check the permissions.") from error
    except Exception as error:  # the stores' clients have no common class of error
        raise InputError(f"{location}: could not be read: {error}. Run again; what is done stays done.") from error


def fetch_many(root: Location, relative_paths: Iterable[str], *, threads: int = 16) -> Iterator[bytes | InputError]:
    """Read files below ``root`` concurrently; yields one item a path, in their order.

    What cannot be read comes as an ``InputError`` that is yielded, not raised: bad input is a row. At most
    ``2 * threads`` files are held or under way at a time, so a slow consumer does not fill the memory.
    """
    return _concurrently((partial(_fetch, root, relative) for relative in relative_paths), threads=threads)


def fetch_locations(locations: Iterable[Location], *, threads: int = 16) -> Iterator[bytes | InputError]:
    """Read files that may lie anywhere; else like ``fetch_many``."""
    return _concurrently((partial(_fetch, location, None) for location in locations), threads=threads)


def _concurrently(fetches: Iterable[Callable[[], bytes | InputError]], *, threads: int) -> Iterator[bytes | InputError]:
    """Call the functions in threads, some ahead; yields what they return, in order."""
    pending: deque[Future[bytes | InputError]] = deque()
    pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="fetch")
    try:
        for fetch in fetches:
            if len(pending) >= 2 * threads:
                yield pending.popleft().result()
            pending.append(pool.submit(fetch))
        while pending:
            yield pending.popleft().result()
    finally:  # also where the consumer stops early
        pool.shutdown(wait=True, cancel_futures=True)


def _fetch(root: Location, relative: str | None) -> bytes | InputError:
    """Read one file; an error is the value."""
    try:
        return fetch_bytes(root if relative is None else root / relative)
    except InputError as error:
        return error
    except Exception as error:
        return InputError(f"{relative or 'a file'}: could not be read below {root}: {error}")
