"""A run killed with SIGKILL before each single thing it does to the disk, and the run after it.

Run as a script, this file is the victim: it forks one process for each point, so that the imports are paid once.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from nucseg_ray.storage.atomic import write_bytes
from nucseg_ray.storage.lease import Lease
from nucseg_ray.storage.ledger import (
    begin_run,
    commit_part,
    committed_stems,
    done_keys,
    drop_failed,
    outcome_counts,
    sweep,
)
from nucseg_ray.storage.listing import find_files
from nucseg_ray.storage.locations import Location
from nucseg_ray.storage.parts import key_rows, read_parts

PLATE = "a b"
SITES = 10
SURVIVED = "survived"


def _key(number: int) -> tuple[str, str, str, None]:
    return (PLATE, "A01", str(number), None)


def _count(number: int) -> int:
    return number % 3


def _run(out: Location, run_id: str, make: Any, *, size: int, failing: frozenset[int] = frozenset()) -> None:
    """Run once in blocks of ``size``; every block's first attempt fails on one site more."""
    with Lease(out):
        drop_failed(out)
        accepted = committed_stems(out)
        begin_run(out, run_id, accepted)
        done = {int(row[2]) for row in key_rows(done_keys(out, accepted))}
        pending = [number for number in range(SITES) if number not in done]
        for start in range(0, len(pending), size):
            numbers = pending[start : start + size]
            for number in numbers:
                write_bytes(out / "masks" / PLATE / f"{number}.png", b"png of %d" % number)
            for fails in (failing | {numbers[-1]}, failing):
                counts = {_key(number): None if number in fails else _count(number) for number in numbers}
                commit_part(out, run_id, make(PLATE, counts))
        sweep(out, run_id, accepted)


def _die_before(turn: int, folder: str) -> None:
    """Kill this process when it is about to change something in ``folder`` for the ``turn``-th time."""
    done = 0

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal done
        changes = event in ("os.rename", "os.remove", "os.mkdir") or (
            event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        )
        if changes and str(args[0]).startswith(folder):
            if done == turn:
                os.kill(os.getpid(), signal.SIGKILL)
            done += 1

    sys.addaudithook(hook)


def _victims(base: Path) -> None:
    from conftest import block  # the script's own folder is the first on the path

    _run(Location(str(base / "start")), "r0", block, size=4, failing=frozenset({1, 9}))
    for turn in range(10_000):
        folder = base / f"{turn:04d}"
        shutil.copytree(base / "start", folder)
        for part in sorted(folder.glob("sites/*/part-*"))[:2]:  # as if killed before these: nuclei without sites
            part.unlink()
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                _die_before(turn, str(folder))
                _run(Location(str(folder)), "r1", block, size=5, failing=frozenset({2}))
                os._exit(0)
            os._exit(1)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            (folder / SURVIVED).write_text(str(os.WEXITSTATUS(status)))
            return


@pytest.fixture(scope="module")
def victims(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    base = tmp_path_factory.mktemp("victims")
    subprocess.run([sys.executable, __file__, str(base)], check=True, timeout=120)
    return sorted(path for path in base.iterdir() if path.name.isdigit())


def test_a_run_killed_anywhere_loses_nothing_and_doubles_nothing(victims: list[Path], make_block: Any) -> None:
    assert len(victims) > 60  # otherwise the hook sees too little
    assert (victims[-1] / SURVIVED).read_text() == "0"
    assert not any((folder / SURVIVED).exists() for folder in victims[:-1])
    half_done = 0
    for folder in victims:
        out = Location(str(folder))
        before = outcome_counts(out)  # also an output that was broken off can be read
        half_done += 0 < before["segmented"] + before["empty"] < SITES
        _run(out, "r2", make_block, size=7)
        assert outcome_counts(out) == {"segmented": 6, "empty": 4, "failed": 0}, folder
        rows = key_rows(read_parts(out, "sites", None))
        assert sorted(rows) == sorted(_key(number) for number in range(SITES)), folder
        nuclei = read_parts(out, "nuclei", None)
        found = Counter(zip(nuclei["Metadata_Site"].to_pylist(), nuclei["ObjectNumber"].to_pylist(), strict=True))
        assert found == {(str(n), nth): 1 for n in range(SITES) for nth in range(1, _count(n) + 1)}, folder
        assert sorted(key_rows(read_parts(out, "masks", None))) == sorted(rows), folder
        assert not list(folder.rglob(".tmp-*")), folder
        assert not (folder / "lease.json").exists()
        assert [name for name, _ in find_files(out / "masks" / PLATE)] == [f"{number}.png" for number in range(SITES)]
    assert half_done > 20


if __name__ == "__main__":
    _victims(Path(sys.argv[1]))
