"""Processes that tests start: found again by a mark in their environment, waited for, and never left behind."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

NAME = "NUCSEG_TEST_MARK"
DEADLINE_S = 600.0


@dataclass(frozen=True, slots=True)
class Mark:
    """A mark that every process inherits from the one that was started with it in its environment."""

    value: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def environment(self) -> dict[str, str]:
        """What a process to be found again needs in its environment."""
        return {NAME: self.value}

    def processes(self) -> list[int]:
        """Find the processes that carry the mark, zombies apart."""
        found = []
        wanted = f"{NAME}={self.value}".encode()
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:  # ended meanwhile, or another user's
                continue
        return found

    def kill(self) -> None:
        """Kill what still runs."""
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def mark() -> Iterator[Mark]:
    """A mark of this test's own; what still carries it at its end is killed."""
    new = Mark()
    yield new
    new.kill()


@pytest.fixture(scope="module")
def module_mark() -> Iterator[Mark]:
    """A mark for what all tests of a module share."""
    new = Mark()
    yield new
    new.kill()


@pytest.fixture(scope="session")
def until() -> Callable[[Callable[[], object], str], None]:
    """Wait for a condition; fail by name where it does not come."""

    def wait(condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, f"waited {DEADLINE_S:.0f} s for {what}"
            time.sleep(0.01)

    return wait
