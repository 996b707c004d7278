"""How long it takes to list a large plate set and to decide what is to be segmented, and how much memory.

    python benchmarks/listing.py --input FOLDER_OR_URI --make 207360

makes so many empty files first, in a folder that is not there yet; without ``--make`` it takes what there is. Each step
is told with its seconds and the memory of the process at its highest until then, over that at the beginning.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from nucseg_ray.plates.naming import FileName
from nucseg_ray.plates.planning import Choice, choose
from nucseg_ray.plates.schemes import SCHEMES
from nucseg_ray.plates.understanding import understand
from nucseg_ray.storage.locations import Location
from nucseg_ray.storage.settling import look_at

WELLS = [f"{row}{column:02d}" for row in "ABCDEFGHIJKLMNOP" for column in range(1, 25)]


def names(count: int) -> list[str]:
    """Give so many names of CellVoyager plates of 384 wells, 9 sites, 5 planes and 4 channels."""
    write = SCHEMES["cellvoyager"].format
    of_plate = list(itertools.product(WELLS, range(1, 10), range(1, 6), range(1, 5)))
    return [
        write(FileName(f"Plate{plate}", well, str(site), "1", z, f"C{channel:02d}"))
        for plate in range(-(-count // len(of_plate)))
        for well, site, z, channel in of_plate[: count - plate * len(of_plate)]
    ]


def make(root: Location, count: int) -> None:
    """Write so many empty files."""
    paths = names(count)
    if root.is_local:
        for folder in {path.rpartition("/")[0] for path in paths}:
            root.fs.makedirs((root / folder).path)
    with ThreadPoolExecutor(16) as pool:
        for _ in pool.map(lambda path: root.fs.pipe_file((root / path).path, b""), paths):
            pass


def told(what: str, step: Callable[[], Any], *, before_kb: int) -> Any:
    """Do one step, and tell its time and the highest memory so far."""
    began = time.perf_counter()
    result = step()
    seconds = time.perf_counter() - began
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb) / 1024
    sys.stdout.write(f"| {what} | {seconds:.1f} | {memory:.0f} |\n")
    return result


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", required=True)
    parser.add_argument("--make", type=int, metavar="FILES")
    parser.add_argument("--settle-s", type=float, default=0.0)
    args = parser.parse_args()
    root = Location(args.input)
    if args.make:
        make(root, args.make)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    look = told("list", lambda: look_at(root, settle_s=args.settle_s), before_kb=before)
    sys.stdout.write(f"{len(look.paths)} files\n")
    understood = told("understand the names", lambda: understand(look.paths, root_name=root.name), before_kb=before)
    choice = Choice(channel=understood.channels[0], wells="A01-H12")
    plan = told("choose", lambda: choose(understood, choice, unsettled=look.unsettled), before_kb=before)
    sys.stdout.write(f"{plan.manifest.num_rows} sites\n")


if __name__ == "__main__":
    main()
