"""Files that are still being written, told from those that are whole."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from nucseg_ray.storage import settling
from nucseg_ray.storage.listing import ListedFile, list_dated
from nucseg_ray.storage.locations import Location
from nucseg_ray.storage.settling import changed_between, look_at, young


def test_a_file_is_young_until_it_has_been_as_it_is_for_long_enough() -> None:
    files = [ListedFile("old", 1, 900.0), ListedFile("edge", 1, 940.0), ListedFile("new", 1, 940.5)]
    files += [ListedFile("ahead", 1, 2000.0), ListedFile("unknown", 1, 0.0)]
    assert young(files, now_s=1000.0, age_s=60.0) == {"new", "ahead"}
    assert young(files, now_s=1000.0, age_s=0.0) == {"ahead"}


def test_what_changes_between_two_looks_is_found_whatever_the_clock() -> None:
    first = [ListedFile(name, 5, 10.0) for name in ("same", "grows", "shrinks", "again", "goes")]
    second = [
        ListedFile("same", 5, 10.0),
        ListedFile("grows", 6, 10.0),
        ListedFile("shrinks", 4, 10.0),
        ListedFile("again", 5, 11.0),
        ListedFile("comes", 5, 10.0),
    ]
    assert changed_between(first, second) == {"grows", "shrinks", "again", "comes"}


def test_a_look_finds_young_and_growing_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "BETWEEN_LOOKS_S", 0.0)
    now = time.time()
    for name, age in (("old", 3600), ("grows", 3600), ("young", 20)):
        (tmp_path / name).write_bytes(b"x")
        os.utime(tmp_path / name, (now - age, now - age))
    once = look_at(Location(str(tmp_path)), settle_s=0)
    assert [file.path for file in once.files] == ["grows", "old", "young"]
    assert (once.unsettled, once.recent) == (frozenset(), 1)
    assert look_at(Location(str(tmp_path)), settle_s=10).unsettled == frozenset()
    looks = []

    def list_and_go_on_writing(location: Location) -> list[ListedFile]:
        looks.append(list_dated(location))
        with (tmp_path / "grows").open("ab") as stream:
            stream.write(b"more")
        os.utime(tmp_path / "grows", (now - 3600, now - 3600))  # a server whose clock is behind
        return looks[-1]

    monkeypatch.setattr(settling, "list_dated", list_and_go_on_writing)
    twice = look_at(Location(str(tmp_path)), settle_s=30)
    assert twice.unsettled == {"grows", "young"}
    assert list(twice.files) == looks[1] != looks[0]
