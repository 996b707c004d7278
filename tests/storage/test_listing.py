from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from nucseg_ray.errors import InputError, MissingInputError
from nucseg_ray.storage.atomic import write_bytes
from nucseg_ray.storage.listing import find_files, list_files, list_folders, walk_files
from nucseg_ray.storage.locations import Location


def test_files_are_sorted_with_sizes_and_without_hidden_ones(out: Location) -> None:
    sizes = {
        "b.tif": 3,
        "a/c.tif": 5,
        "a/b/d.tif": 0,
        "a.tif": 1,
        ".hidden": 2,
        ".cache/e.tif": 2,
        "a/.f": 2,
        "ä [x]": 4,
    }
    for name, size in sizes.items():
        write_bytes(out / name, b"x" * size)
    assert list_files(out) == [("a.tif", 1), ("a/b/d.tif", 0), ("a/c.tif", 5), ("b.tif", 3), ("ä [x]", 4)]
    assert list_folders(out) == [".cache", "a"]
    write_bytes(out / "new.tif", b"")
    assert ("new.tif", 0) in list_files(out)


def test_files_are_dated(out: Location) -> None:
    before = time.time()
    write_bytes(out / "a" / "x.tif", b"xyz")
    (file,) = walk_files(out)
    assert (file.path, file.size) == ("a/x.tif", 3)
    assert before - 2 <= file.changed_s <= time.time() + 2  # object stores tell whole seconds


def test_a_missing_folder_names_the_closest(out: Location) -> None:
    write_bytes(out / "plate_12" / "x.tif", b"x")
    with pytest.raises(MissingInputError, match=r"plate12: expected a folder .* Did you mean .*/plate_12\?"):
        list_files(out / "plate12")
    assert find_files(out / "plate12") == []
    assert list_folders(out / "plate12") == []


def test_a_file_is_not_a_folder(out: Location) -> None:
    write_bytes(out / "x.tif", b"x")
    with pytest.raises(InputError, match="expected a folder, found a file"):
        list_files(out / "x.tif")


def test_an_empty_local_folder_is_empty(tmp_path: Path) -> None:
    assert list_files(Location(str(tmp_path))) == []


def test_links_are_followed_but_not_round_in_circles(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.tif").write_bytes(b"xx")
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "sub" / "up").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "broken").symlink_to(tmp_path / "nowhere")
    assert list_files(Location(str(tmp_path / "in"))) == [("broken", 0), ("link/x.tif", 2)]


def test_what_cannot_be_listed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir()
    real = os.scandir

    def scandir(path: str) -> Any:  # root may read everything, so permissions alone would not refuse
        if "closed" in path:
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(InputError, match=r"closed/: cannot be listed \(Permission denied\)"):
        list_files(Location(str(tmp_path)))


def test_a_name_that_is_not_utf8_is_an_error(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/a\xff.tif")).write_bytes(b"")
    with pytest.raises(InputError, match=r"expected names in UTF-8, found 'a\\udcff.tif'"):
        list_files(Location(str(tmp_path)))


class _Remembering(MemoryFileSystem):
    """An object store whose client answers from remembered listings, as s3fs does."""

    protocol = "remembering"
    remembered: ClassVar[dict[str, Any]] = {}

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.removeprefix("remembering://"))

    def find(self, path: str, *args: Any, **kwargs: Any) -> Any:
        return self.remembered.setdefault(path, super().find(path, *args, **kwargs))

    def invalidate_cache(self, path: str | None = None) -> None:
        self.remembered.clear()


def test_listings_are_fresh(memory: Location) -> None:
    fsspec.register_implementation("remembering", _Remembering, clobber=True)
    root = Location(f"remembering://{memory.name}")  # the same store, seen by such a client
    write_bytes(memory / "a", b"")
    assert list_files(root) == [("a", 0)]
    write_bytes(memory / "b", b"")
    assert list(root.fs.find(root.path, detail=True)) == [f"{root.path}/a"]
    assert list_files(root) == [("a", 0), ("b", 0)]
