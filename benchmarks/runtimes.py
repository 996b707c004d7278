"""The network's forms against each other: speed, start, scores, agreement, and whole runs of ``jobs/predict.py``.

Everything that is compared is measured in turn (A B C A B C ...), and the median of the rounds is given.

    python benchmarks/runtimes.py --model model --input PLATE --channel Channel2 --threads 2

writes ``runtimes.json`` and ``runtimes.md`` beside this file.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nucseg_ray.imaging.codecs import as_rgb, decode_image
from nucseg_ray.imaging.metrics import match, pool
from nucseg_ray.model.bundle import REFERENCE, Bundle, read_bundle
from nucseg_ray.model.predictor import load_predictor
from nucseg_ray.model.segmenter import Segmenter
from nucseg_ray.plates.planning import Choice, choose
from nucseg_ray.plates.understanding import understand
from nucseg_ray.storage.listing import list_files
from nucseg_ray.storage.locations import Location

HERE = Path(__file__).resolve().parent
SITES_AT_ONCE = 16
FIRST_RESULT = """
import sys
from pathlib import Path
from nucseg_ray.imaging.codecs import decode_image
from nucseg_ray.model.segmenter import Segmenter
model, form, threads, image = sys.argv[1:]
segmenter = Segmenter.load(model, form=form, threads=int(threads))
segmenter.maps(decode_image(Path(image).read_bytes(), name=image))
"""


def in_turn(cases: Mapping[str, Callable[[], Mapping[str, float]]], *, rounds: int) -> dict[str, dict[str, float]]:
    """Call each case once a round; give the median of each of its figures."""
    figures: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            for figure, value in case().items():
                figures[name][figure].append(value)
    return {
        name: {figure: round(statistics.median(values), 3) for figure, values in of_case.items()}
        for name, of_case in figures.items()
    }


def network_speed(
    bundle: Bundle, images: Sequence[np.ndarray], threads: int, rounds: int
) -> dict[str, dict[str, float]]:
    """Run the network alone, all forms in this process, on normalised images that are in memory."""
    batch = np.stack([as_rgb(bundle.normalisation.normalise(image)) for image in images[:SITES_AT_ONCE]])

    def case(form: str) -> Callable[[], dict[str, float]]:
        predictor = load_predictor(bundle, form=form, threads=threads)
        predictor.predict(batch)

        def run() -> dict[str, float]:
            began = time.perf_counter()
            predictor.predict(batch)
            return {"images_per_s": len(batch) / (time.perf_counter() - began)}

        return run

    return in_turn({form: case(form) for form in (REFERENCE, *bundle.forms)}, rounds=rounds)


def first_result(bundle: Bundle, image: Path, threads: int, rounds: int) -> dict[str, dict[str, float]]:
    """Start a process, load the model, predict one site: what each actor does before it is of any use."""

    def case(form: str) -> Callable[[], dict[str, float]]:
        def run() -> dict[str, float]:
            began = time.perf_counter()
            command = [sys.executable, "-c", FIRST_RESULT, str(bundle.folder), form, str(threads), str(image)]
            subprocess.run(command, check=True, capture_output=True)
            return {"first_result_s": time.perf_counter() - began}

        return run

    return in_turn({form: case(form) for form in (REFERENCE, *bundle.forms)}, rounds=rounds)


def whole_runs(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Run ``jobs/predict.py`` as a user would: from the command to its end, and to the first mask on disk."""

    def case(runtime: str) -> Callable[[], dict[str, float]]:
        def run() -> dict[str, float]:
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, str(HERE.parent / "jobs/predict.py"), "--model", args.model]
                command += ["--input", args.input, "--output", f"{folder}/out", "--runtime", runtime]
                command += ["--threads-per-actor", str(args.threads)]
                began = time.time()
                subprocess.run(command + channel(args.channel), check=True, capture_output=True)
                took = time.time() - began
                first = min(path.stat().st_mtime for path in Path(folder, "out/masks").rglob("*.png"))
            return {"predict_s": took, "first_mask_s": first - began}

        return run

    return in_turn({runtime: case(runtime) for runtime in ("tensorflow", "openvino")}, rounds=args.rounds)


def channel(name: str | None) -> list[str]:
    """Give the flag of the channel."""
    return [] if name is None else ["--channel", name]


def agreement(bundle: Bundle, images: Iterable[np.ndarray], threads: int) -> dict[str, dict[str, float]]:
    """Compare each form with the reference: the nuclear map, and the labels as if the reference were the truth."""
    images = list(images)
    reference = Segmenter.load(bundle.folder, form=REFERENCE, threads=threads)
    expected = [reference.maps(image) for image in images]
    found = {}
    for form in bundle.forms:
        segmenter = Segmenter.load(bundle.folder, form=form, threads=threads)
        maps = [segmenter.maps(image) for image in images]
        difference = [np.abs(a.astype(int) - b) for a, b in zip(maps, expected, strict=True)]
        matches = pool(
            [match(bundle.labels.label(b), bundle.labels.label(a)) for a, b in zip(maps, expected, strict=True)]
        )
        found[form] = {
            "maps_mean_difference": round(float(np.mean([d.mean() for d in difference])) / 255, 5),
            "maps_largest_difference": round(max(int(d.max()) for d in difference) / 255, 3),
            "ap50_against_reference": round(float(matches.ap[0]), 4),
            "mean_ap_against_reference": round(float(matches.ap.mean()), 4),
        }
    return found


def machine() -> dict[str, Any]:
    """Say where the figures are from."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    named = [line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")]
    return {
        "processor": named[0] if named else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in ("tensorflow", "openvino", "nncf", "ray")},
    }


def table(result: Mapping[str, Any]) -> str:
    """Draw the results as Markdown."""
    reference = result["network"][REFERENCE]["images_per_s"]
    lines = [
        f"# Runtimes of the network: {result['machine']['cores']} cores, {' x '.join(map(str, result['shape']))} px",
        "",
        "Medians of rounds that alternate (`benchmarks/runtimes.py`). Scores: the bundle's validation images.",
        "",
        "| form | network, images/s | ratio | start to first result, s | mean AP | AP@0.5 | against TensorFlow |",
        "|---|---|---|---|---|---|---|",
    ]
    for form, speed in result["network"].items():
        scores = result["scores"].get(form, {}).get("all")
        told = [f"{scores['mean_ap']:.4f}", f"{scores['ap'][0]:.4f}"] if scores else ["-", "-"]
        against = result["agreement"].get(form, {}).get("mean_ap_against_reference", 1.0)
        rate = speed["images_per_s"]
        start = result["start"][form]["first_result_s"]
        lines.append(
            f"| {form} | {rate:.1f} | {rate / reference:.2f} | {start:.1f} | {told[0]} | {told[1]} | {against} |"
        )
    lines += [
        "",
        "| mean AP by kind | " + " | ".join(result["scores"]) + " |",
        "|---" * (len(result["scores"]) + 1) + "|",
    ]
    for kind in result["scores"].get(REFERENCE, {}):
        figures = [f"{scores[kind]['mean_ap']:.4f}" for scores in result["scores"].values()]
        lines.append(f"| {kind} | " + " | ".join(figures) + " |")
    runs = result["predict"]
    slow, fast = runs["tensorflow"], runs["openvino"]
    lines += ["", f"`jobs/predict.py` on {result['sites']} sites, start-up included:", ""]
    lines += ["| runtime | whole run, s | first mask on disk, s |", "|---|---|---|"]
    lines += [f"| {name} | {run['predict_s']:.1f} | {run['first_mask_s']:.1f} |" for name, run in runs.items()]
    lines.append(
        f"| ratio | {slow['predict_s'] / fast['predict_s']:.2f} | {slow['first_mask_s'] / fast['first_mask_s']:.2f} |"
    )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and write both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="folder of a model bundle with its forms")
    parser.add_argument("--input", required=True, help="plate to segment; its images must have one shape")
    parser.add_argument("--channel", help="channel to segment")
    parser.add_argument("--threads", type=int, default=2, help="threads of the network")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each measurement")
    args = parser.parse_args()
    bundle = read_bundle(Path(args.model))
    root = Location(args.input)
    understood = understand((path for path, _ in list_files(root)), root_name=root.name)
    sites = choose(understood, Choice(channel=args.channel)).manifest
    paths = [Path(args.input) / planes[0] for planes in sites.column("planes").to_pylist()]
    images = [decode_image(path.read_bytes(), name=path.name) for path in paths]
    result = {
        "machine": machine(),
        "sites": len(images),
        "shape": list(images[0].shape),
        "predict": whole_runs(args),
        "start": first_result(bundle, paths[0], args.threads, args.rounds),
        "network": network_speed(bundle, images, args.threads, args.rounds),
        "agreement": agreement(bundle, images[::4], args.threads),
        "scores": {
            form: {kind: {name: scores[name] for name in ("images", "mean_ap", "ap")} for kind, scores in kinds.items()}
            for form, kinds in bundle.metrics.items()
        },
    }
    (HERE / "runtimes.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    (HERE / "runtimes.md").write_text(table(result), encoding="utf-8")
    print(table(result))


if __name__ == "__main__":
    main()
