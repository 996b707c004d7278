"""What workers tell while they work: a board that they write to and the driver reads out."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray

POLL_S = 0.5
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
