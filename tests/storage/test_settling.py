"""Files that are still being written, told from those that are whole."""

from __future__ import annotations

import os
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from nucseg_ray.storage import settling
from nucseg_ray.storage.locations import Location
from nucseg_ray.storage.settling import SETTLE_S, look_at

NOW = time.time() + 86_400  # what is written by a test is a day old


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], list[float]]:
    """Set the clock a day on, and what happens while one waits for the second look; gives the waits as they come."""

    def happens(change: Callable[[], None]) -> list[float]:
        waits: list[float] = []
        clock = SimpleNamespace(time=lambda: NOW, sleep=lambda seconds: (waits.append(seconds), change()))
        monkeypatch.setattr(settling, "time", clock)
        return waits

    return happens


def _write(file: Path, data: bytes = b"x", *, age_s: float | None = None) -> None:
    file.write_bytes(data)
    if age_s is not None:
        os.utime(file, (NOW - age_s,) * 2)


def test_a_file_is_young_until_it_has_been_as_it_is_for_long_enough(
    tmp_path: Path, between: Callable[..., list[float]]
) -> None:
    for name, age_s in (("old", 86_000.0), ("edge", 60.0), ("new", 59.5), ("ahead", -1000.0)):
        _write(tmp_path / name, age_s=age_s)
    (tmp_path / "broken").symlink_to("nowhere")  # nothing is known of it
    waits = between(lambda: None)
    assert look_at(Location(str(tmp_path)), settle_s=60).unsettled == {"new", "ahead"}
    assert waits == [settling.BETWEEN_LOOKS_S]


def test_what_changes_between_two_looks_is_found_whatever_the_clock(
    tmp_path: Path, between: Callable[..., list[float]]
) -> None:
    for name in ("same", "grows", "again", "goes"):
        _write(tmp_path / name)

    def go_on() -> None:
        _write(tmp_path / "grows", b"more")
        _write(tmp_path / "comes")
        os.utime(tmp_path / "again", (NOW - 3600,) * 2)
        (tmp_path / "goes").unlink()

    between(go_on)
    look = look_at(Location(str(tmp_path)), settle_s=1)
    assert (look.unsettled, look.settle_s) == ({"grows", "again", "comes"}, 1)
    assert sorted(look.paths) == ["again", "comes", "grows", "same"]


def test_a_copy_that_keeps_dates_is_as_young_as_it_is(tmp_path: Path) -> None:
    _write(tmp_path / "copied")
    os.utime(tmp_path / "copied", (0, 0))
    (file,) = settling.walk_files(Location(str(tmp_path)))
    assert file.changed_s > time.time() - 60


def test_all_is_taken_by_default_where_nothing_changes_while_one_looks(
    tmp_path: Path, between: Callable[..., list[float]]
) -> None:
    root = Location(str(tmp_path))
    _write(tmp_path / "old")
    waits = between(lambda: pytest.fail("nothing is young"))
    assert look_at(root, settle_s=None) == settling.Look(["old"])
    assert look_at(root, settle_s=0).unsettled is None and waits == []
    _write(tmp_path / "copied", age_s=3)
    waits = between(lambda: None)
    look = look_at(root, settle_s=None)
    assert (sorted(look.paths), look.unsettled, waits) == (["copied", "old"], None, [settling.BETWEEN_LOOKS_S])


def test_a_folder_that_is_written_to_is_found_by_default(tmp_path: Path, between: Callable[..., list[float]]) -> None:
    for name, age_s in (("old", 3600), ("minute", 59), ("young", 3)):
        _write(tmp_path / name, age_s=age_s)
    between(lambda: _write(tmp_path / "comes"))
    look = look_at(Location(str(tmp_path)), settle_s=None)
    assert (look.unsettled, look.settle_s) == ({"minute", "young", "comes"}, SETTLE_S)


def test_looks_take_little_memory_beside_the_paths(tmp_path: Path, between: Callable[..., list[float]]) -> None:
    for number in range(5000):
        (tmp_path / f"{number:060d}").touch()
    between(lambda: None)
    root = Location(str(tmp_path))
    look_at(root, settle_s=30)  # what stays in caches
    tracemalloc.start()
    look = look_at(root, settle_s=30)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (len(look.paths), look.unsettled) == (5000, frozenset())
    # A path of 109 bytes, its place of 8, and 24 of what is compared, twice while numpy does; as objects it took 600.
    assert peak / 5000 < 230
