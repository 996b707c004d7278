from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nucseg_ray.errors import OutputBusyError, OutputError
from nucseg_ray.storage import lease as lease_module
from nucseg_ray.storage.atomic import remove, write_bytes, write_json
from nucseg_ray.storage.fetch import fetch_bytes
from nucseg_ray.storage.lease import Lease, LeaseTiming, process_start
from nucseg_ray.storage.locations import Location

QUICK = LeaseTiming(beat_s=0.01, stale_s=60.0, settle_s=0.0)
HOLD = """
import sys, threading
from nucseg_ray.storage.lease import Lease
from nucseg_ray.storage.locations import Location
with Lease(Location(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lease on ``tmp_path`` until its input ends."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.002)


def written(out: Location) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(fetch_bytes(out / "lease.json"))
    return found


def test_a_live_holder_is_named_and_a_killed_one_replaced_at_once(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    out = Location(str(tmp_path))
    with pytest.raises(OutputBusyError, match=rf"process {holder.pid} on host {socket.gethostname()} since 20"):
        Lease(out).__enter__()
    assert written(out)["pid"] == holder.pid
    os.kill(holder.pid, signal.SIGKILL)
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # dead, and still a zombie: nobody asked for its status
    assert process_start(holder.pid) is None
    with Lease(out):
        assert written(out)["pid"] == os.getpid()
    holder.wait()
    with Lease(out):
        pass


def test_a_holder_that_ends_gives_it_back(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.communicate("", timeout=60)
    assert holder.returncode == 0
    assert not (tmp_path / "lease.json").exists()


def test_of_many_takers_one_wins(out: Location) -> None:
    """Also over a dead holder's lease, which all of them find at the same moment."""
    with Lease(out, timing=QUICK):
        dead = written(out) | {"host": "elsewhere", "beat": time.time() - 61}
    write_json(out / "lease.json", dead)
    start, end = threading.Barrier(6), threading.Barrier(6)
    outcomes = []

    def take() -> None:
        start.wait(timeout=30)
        try:
            with Lease(out, timing=LeaseTiming(beat_s=10.0, stale_s=60.0, settle_s=0.3)):
                outcomes.append("held")
                end.wait(timeout=30)
        except OutputBusyError:
            outcomes.append("refused")
            end.wait(timeout=30)

    threads = [threading.Thread(target=take) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["held", *["refused"] * 5]


def test_a_reused_process_number_is_not_the_old_run(tmp_path: Path) -> None:
    out = Location(str(tmp_path))
    with Lease(out):
        mine = written(out)
    write_json(out / "lease.json", mine | {"process_start": "another time"})
    with Lease(out):
        assert written(out)["process_start"] == process_start(os.getpid())
    write_json(out / "lease.json", mine)
    with pytest.raises(OutputBusyError, match="delete"):
        Lease(out).__enter__()


@pytest.mark.parametrize(("silence_s", "free"), [(61.0, True), (30.0, False)])
def test_another_host_is_given_up_after_a_minute(out: Location, silence_s: float, free: bool) -> None:
    with Lease(out, timing=QUICK):
        mine = written(out)
    write_json(out / "lease.json", mine | {"host": "elsewhere", "pid": 1, "beat": time.time() - silence_s})
    if free:
        with Lease(out, timing=QUICK):
            assert written(out)["host"] == socket.gethostname()
    else:
        with pytest.raises(OutputBusyError, match=r"process 1 on host elsewhere .*last sign of life 30 s ago"):
            Lease(out, timing=QUICK).__enter__()


def test_the_heart_beats_and_stops(out: Location) -> None:
    with Lease(out, timing=QUICK) as lease:
        first = written(out)
        until(lambda: written(out)["beat"] > first["beat"])
        assert written(out) | {"beat": 0} == first | {"beat": 0}
        lease.check()
    assert not out.fs.exists((out / "lease.json").path)
    assert "lease" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize("taken", [True, False])
def test_a_lost_lease_is_noticed_and_not_taken_back(out: Location, taken: bool) -> None:
    lease = Lease(out, timing=QUICK)
    lost = []

    def noticed() -> bool:
        try:
            lease.check()
        except OutputBusyError:
            lost.append(True)
        return bool(lost)

    with lease:
        if taken:
            # A beat that read before this write may write after it; then it is taken once more.
            def take() -> bool:
                write_json(out / "lease.json", written_by_other)
                return noticed()

            written_by_other = written(out) | {"token": "other", "host": "elsewhere"}
            until(take)
        else:
            until(lambda: remove(out / "lease.json") or noticed())
    assert out.fs.exists((out / "lease.json").path) == taken


def test_a_beat_that_fails_is_tried_again(out: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = []

    def fail(location: Location, value: Any) -> None:
        failures.append(value)
        raise OutputError("disk full")

    with Lease(out, timing=QUICK) as lease:
        with monkeypatch.context() as full:
            full.setattr(lease_module, "write_json", fail)
            until(lambda: len(failures) >= 2)
        last = failures[-1]["beat"]
        until(lambda: written(out)["beat"] > last)
        lease.check()


def test_what_is_no_lease_is_an_error(out: Location) -> None:
    for data in (b"", b"[]", b'{"host": 1}'):
        write_bytes(out / "lease.json", data)
        with pytest.raises(OutputError, match=r"expected a lease, .*Delete it"):
            Lease(out, timing=QUICK).__enter__()


def test_an_output_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot be made"):
        Lease(Location(str(tmp_path / "file" / "out"))).__enter__()


def test_where_proc_is_missing_ps_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda self: False)
    start = process_start(os.getpid())
    assert start is not None
    assert start == process_start(os.getpid())
    with subprocess.Popen(["true"]) as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        assert process_start(ended.pid) is None
