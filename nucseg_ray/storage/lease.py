"""The lease on an output: one run at a time.

It spares two runs each other's work. That they could not harm each other even so is the business of ``ledger``: only
the run that began last may commit.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from nucseg_ray.errors import MissingInputError, NucsegError, OutputBusyError, OutputError
from nucseg_ray.storage.atomic import remove, write_json
from nucseg_ray.storage.fetch import fetch_bytes
from nucseg_ray.storage.locations import Location

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LeaseTiming:
    """Times in seconds: between heartbeats; until a silent one is given up; until a remote taker looks who won."""

    beat_s: float = 10.0
    stale_s: float = 60.0
    settle_s: float = 2.0


DEFAULT_TIMING = LeaseTiming()


@dataclass(frozen=True, slots=True)
class _Holder:
    """What ``lease.json`` says."""

    host: str
    pid: int
    process_start: str | None
    since: str
    beat: float
    token: str


class Lease:
    """Context manager that holds ``OUT/lease.json`` and renews it from a daemon thread.

    A holder whose process is gone from this host is replaced at once (a reused process number is told apart by the time
    the process started); one on another host after ``stale_s`` without a heartbeat.

    Raises
    ------
    OutputBusyError
        On entering, if another run holds it; names its host, process and since when.
    OutputError
        If the file cannot be written, or is not a lease.
    """

    def __init__(self, out: Location, *, timing: LeaseTiming = DEFAULT_TIMING) -> None:
        self._out = out
        self._file = out / "lease.json"
        self._timing = timing
        self._mine: _Holder | None = None
        self._lost = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Take the lease and start the heartbeat."""
        pid = os.getpid()
        since = datetime.now(UTC).isoformat(timespec="seconds")
        self._mine = _Holder(socket.gethostname(), pid, process_start(pid), since, time.time(), uuid.uuid4().hex)
        self._lost = False
        self._stop.clear()
        with _one_taker_at_a_time(self._out):
            self._refuse_if_held()
            write_json(self._file, asdict(self._mine))
        if not self._out.is_local:
            self._settle()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the heartbeat and give the lease back."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=self._timing.beat_s)
        try:
            if self._holds():
                remove(self._file)
        except NucsegError as problem:
            logger.warning("The lease could not be given back: %s", problem)

    def check(self) -> None:
        """Check that the lease is still held.

        Raises
        ------
        OutputBusyError
            If another run took it (this host was silent for too long), or it was deleted.
        """
        if self._lost:
            raise OutputBusyError(f"{self._file}: was expected to be ours, was taken over or deleted. Run again.")

    def _refuse_if_held(self) -> None:
        """Raise unless the lease is free or its holder is gone."""
        holder = self._read()
        if holder is None or self._is_gone(holder):
            return
        raise OutputBusyError(
            f"{self._out}: is in use by process {holder.pid} on host {holder.host} since {holder.since} (last sign of "
            f"life {time.time() - holder.beat:.0f} s ago). Wait for it, stop it, or choose another output; if it "
            f"surely does not run any more, delete {self._file}."
        )

    def _is_gone(self, holder: _Holder) -> bool:
        """Tell whether the holder will never come back."""
        if holder.host == socket.gethostname():
            return not _is_running(holder)
        return time.time() - holder.beat > self._timing.stale_s

    def _settle(self) -> None:
        """Object stores have no locks: of several takers the last to write wins, and each looks whether it is him."""
        time.sleep(self._timing.settle_s)
        if not self._holds():
            raise OutputBusyError(f"{self._out}: another run began at the same moment and has it. Wait for it.")

    def _read(self) -> _Holder | None:
        """Read the lease; None where there is none."""
        try:
            return _Holder(**json.loads(fetch_bytes(self._file)))
        except MissingInputError:
            return None
        except (ValueError, TypeError) as error:
            raise OutputError(f"{self._file}: expected a lease, could not read one ({error}). Delete it.") from error

    def _holds(self) -> bool:
        """Tell whether the lease on disk is ours."""
        holder = self._read()
        return holder is not None and self._mine is not None and holder.token == self._mine.token

    def _beat(self) -> None:
        """Renew the lease until it is given back or lost."""
        while self._mine is not None and not self._stop.wait(self._timing.beat_s):
            try:
                if not self._holds():
                    self._lost = True
                    logger.error("%s was taken over or deleted; this run can commit nothing more.", self._file)
                    return
                write_json(self._file, asdict(replace(self._mine, beat=time.time())))
            except NucsegError as problem:  # a full disk or a network that is down may come back
                logger.warning("The lease could not be renewed: %s", problem)


def process_start(pid: int) -> str | None:
    """Return when a process started, as text good for comparing only; None where there is no living one."""
    status = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            fields = status.read_text().rpartition(")")[2].split()  # the command before it may hold anything
        except OSError:
            return None
        return None if fields[0] in "ZX" else fields[19]
    listed = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, start = listed.stdout.strip().partition(" ")
    return start.strip() if state and not state.startswith("Z") else None


def _is_running(holder: _Holder) -> bool:
    """Tell whether the very process that took the lease still runs on this host."""
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        # Another user's. Its start may be hidden from us; then believe that it is the one.
        found = process_start(holder.pid)
        return found is None or found == holder.process_start
    return process_start(holder.pid) == holder.process_start


@contextlib.contextmanager
def _one_taker_at_a_time(out: Location) -> Iterator[None]:
    """Let one process at a time look at a local lease and take it; the kernel frees the lock if it is killed."""
    if not out.is_local:
        yield
        return
    try:
        Path(out.path).mkdir(parents=True, exist_ok=True)
        handle = os.open(out.path, os.O_RDONLY)
    except OSError as error:
        raise OutputError(
            f"{out}: the output folder cannot be made or opened ({error.strerror}). Choose another."
        ) from error
    try:
        # Some network filesystems cannot lock a folder; there the last taker wins, and the ledger keeps them apart.
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
