"""How far a run is: a board that workers write to and the driver reads out, and the counts of committed parts."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray
from tqdm import tqdm

POLL_S = 0.5
SECONDS_BETWEEN_LINES = 10.0
# Takes a row of the history.
OnEpoch = Callable[[Mapping[str, float]], None]
logger = logging.getLogger(__name__)


@ray.remote(num_cpus=0)
class Board:
    """Keeps lines, and rows of the history, until the driver takes them."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._epochs: list[Mapping[str, float]] = []

    def say(self, line: str) -> None:
        """Add a line."""
        self._lines.append(line)

    def end_epoch(self, row: Mapping[str, float]) -> None:
        """Add a row of the history."""
        self._epochs.append(row)

    def take(self) -> tuple[list[str], list[Mapping[str, float]]]:
        """Give the lines and rows not yet taken."""
        taken = self._lines, self._epochs
        self._lines, self._epochs = [], []
        return taken


@contextmanager
def relayed_board(on_epoch: OnEpoch) -> Iterator[Any]:
    """Give a board; this process logs its lines and calls ``on_epoch`` with its rows while the block runs."""
    board = Board.remote()  # type: ignore[attr-defined]
    done = threading.Event()

    def relay() -> None:
        while not done.wait(POLL_S):
            _read_out(board, on_epoch)

    thread = threading.Thread(target=relay, name="progress", daemon=True)
    thread.start()
    try:
        yield board
    finally:
        done.set()
        thread.join()
        _read_out(board, on_epoch)


def shown(parts: Iterable[dict[str, Any]], *, total: int) -> Iterator[dict[str, Any]]:
    """Pass the counts of committed parts on, and show how far the run is: a bar on a terminal, lines in a log."""
    began = spoken = time.monotonic()
    seen: Counter[str] = Counter()
    with tqdm(total=total, unit="site", disable=not sys.stderr.isatty()) as bar:
        for part in parts:
            yield part
            for name in ("segmented", "empty", "failed", "n_nuclei"):
                seen[name] += int(part[name] or 0)
            done = seen["segmented"] + seen["empty"] + seen["failed"]
            bar.update(done - bar.n)
            now = time.monotonic()
            if bar.disable and (now - spoken >= SECONDS_BETWEEN_LINES or done == total):
                spoken = now
                left = (now - began) / done * (total - done)
                logger.info(
                    "%d of %d sites, %d nuclei, %d failed; %s to go",
                    done,
                    total,
                    seen["n_nuclei"],
                    seen["failed"],
                    duration(left),
                )


def duration(seconds: float) -> str:
    """Write a time span as people read it: ``48 s``, ``3 min 20 s``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _read_out(board: Any, on_epoch: OnEpoch) -> None:
    try:
        lines, epochs = ray.get(board.take.remote(), timeout=10)
    except ray.exceptions.RayError:  # the cluster is going down; the run's own error is what matters
        return
    for line in lines:
        logger.info(line)
    for row in epochs:
        on_epoch(row)
