"""Where things lie: a local path or a URI, and the filesystem behind it."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import fsspec.core

from nucseg_ray.errors import UsageError

_LOCAL = ("", "file", "local")

# s3fs answers from remembered listings, and then does not see what another process wrote, not even when a file is
# asked for by its name. With one connection a file it also saves the request for a file's size before each read.
_STORE_OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {"use_listings_cache": False, "max_concurrency": 1},
    "s3a": {"use_listings_cache": False, "max_concurrency": 1},
}


@dataclass(frozen=True, slots=True, order=True)
class Location:
    """A file or folder, local or remote; made without touching it, and picklable.

    A local location holds its absolute path as ``uri``, so that it means the same on every worker of one machine.
    ``location / "a/b"`` is the child, whose name may hold any character (it is not parsed as a URI).

    Raises
    ------
    UsageError
        For an unknown protocol, for an empty URI, and for a URI that carries a password or a signature: ``uri``
        goes into logs and into ``run.json``, so credentials must come from the environment or a profile.
    """

    uri: str

    def __post_init__(self) -> None:
        """Check the URI and write it in one way."""
        protocol, rest = _split(self.uri)
        if not self.uri or "\0" in self.uri:
            raise UsageError("A path or URI was expected, found an empty one or one with a NUL character.")
        if protocol in _LOCAL:
            object.__setattr__(self, "uri", os.path.normpath(Path(rest).expanduser().absolute()))
            return
        secret = re.match(r"[^/]*:[^/]*@", rest) or (protocol in ("http", "https") and "?" in rest)
        if secret:
            raise UsageError(
                f"A URI of {protocol}:// carries a password or a signature (not shown here). It would end up in logs "
                "and in run.json: give credentials through the environment or a profile, and the URI without them."
            )
        known = {*fsspec.available_protocols(), *fsspec.registry}
        if protocol not in known:
            close = difflib.get_close_matches(protocol, sorted(known), n=1)
            hint = f" Did you mean {close[0]}://?" if close else ""
            raise UsageError(f"{self.uri}: no filesystem is known for {protocol}://.{hint} Expected a path or s3://...")
        object.__setattr__(self, "uri", f"{protocol}://{rest.rstrip('/')}")

    def __str__(self) -> str:
        """Return the URI, as messages show it."""
        return self.uri

    @property
    def is_local(self) -> bool:
        """Whether it is a path of this machine's filesystem."""
        return _split(self.uri)[0] in _LOCAL

    @property
    def fs(self) -> Any:
        """The fsspec filesystem; fsspec keeps one for each set of options, so asking again is cheap.

        Raises
        ------
        UsageError
            If the package that the protocol needs is not installed.
        """
        protocol, rest = _split(self.uri)
        if protocol in _LOCAL:
            return fsspec.filesystem("file")
        # Only the part before the first slash is parsed: a name further down may hold "::", which fsspec would take
        # for a chain of filesystems.
        root = f"{protocol}://{rest.split('/', 1)[0]}"
        try:
            return fsspec.core.url_to_fs(root, **_STORE_OPTIONS.get(protocol, {}))[0]
        except ImportError as error:
            raise UsageError(f"{self.uri}: {protocol}:// needs a package that is not installed: {error}") from error

    @property
    def path(self) -> str:
        """The path as ``fs`` wants it."""
        return self.uri if self.is_local else str(self.fs._strip_protocol(self.uri))

    @property
    def name(self) -> str:
        """The last level of the path."""
        return self.uri.rstrip("/").rsplit("/", 1)[-1]

    @property
    def parent(self) -> Location:
        """The folder that holds it (the root is its own parent)."""
        head, _, tail = self.uri.rpartition("/")
        if not tail or head.endswith("/") or not head:
            return self if not self.is_local else Location("/")
        return Location(head)

    def __truediv__(self, child: str) -> Location:
        """Return the location of ``child``, a relative path with ``/`` between levels.

        Raises
        ------
        UsageError
            If ``child`` is empty, absolute, or climbs out with ``..``.
        """
        levels = child.split("/")
        if any(level in ("", ".", "..") for level in levels) or "\0" in child:
            raise UsageError(f"{child!r}: expected a relative path below {self.uri}, without '..' or empty levels.")
        joined = object.__new__(Location)
        object.__setattr__(joined, "uri", self._prefix + child)
        return joined

    def relative_to(self, root: Location) -> str:
        """Return the path below ``root``.

        Raises
        ------
        UsageError
            If it does not lie below ``root``.
        """
        if not self.uri.startswith(root._prefix):
            raise UsageError(f"{self.uri}: expected a place below {root.uri}.")
        return self.uri[len(root._prefix) :]

    @property
    def _prefix(self) -> str:
        """What the URI of everything below it begins with."""
        return self.uri if self.uri.endswith("/") else self.uri + "/"


def is_relative(uri: str) -> bool:
    """Tell whether a URI is a local path that means another place in another working directory."""
    protocol, rest = _split(uri)
    return protocol in _LOCAL and not Path(rest).expanduser().is_absolute()


def _split(uri: str) -> tuple[str, str]:
    """Return protocol ("" for a plain path) and the rest."""
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", uri, flags=re.DOTALL)
    return (found[1].lower(), found[2]) if found else ("", uri)
