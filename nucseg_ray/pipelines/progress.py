"""Lines from workers to a person: a board that workers write to and the driver reads out."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

POLL_S = 0.5
logger = logging.getLogger(__name__)


@ray.remote(num_cpus=0)
class Board:
    """Keeps lines until the driver takes them."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def say(self, line: str) -> None:
        """Add a line."""
        self._lines.append(line)

    def take(self) -> list[str]:
        """Give the lines not yet taken."""
        taken, self._lines = self._lines, []
        return taken


@contextmanager
def relayed_board() -> Iterator[Any]:
    """Give a board whose lines are logged by this process while the block runs."""
    board = Board.remote()  # type: ignore[attr-defined]
    done = threading.Event()

    def relay() -> None:
        while not done.wait(POLL_S):
            _log(board)

    thread = threading.Thread(target=relay, name="progress", daemon=True)
    thread.start()
    try:
        yield board
    finally:
        done.set()
        thread.join()
        _log(board)


def duration(seconds: float) -> str:
    """Write a time span as people read it: ``48 s``, ``3 min 20 s``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _log(board: Any) -> None:
    try:
        lines = ray.get(board.take.remote(), timeout=10)
    except ray.exceptions.RayError:  # the cluster is going down; the run's own error is what matters
        return
    for line in lines:
        logger.info(line)
