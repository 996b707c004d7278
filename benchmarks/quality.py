r"""How good the masks are: a model on one fold of the Bowl, kind by kind, as it is and transformed, beside others.

    python benchmarks/quality.py --data DATA/stage1_train --index DATA/stage1_train_index.csv --fold 0

scores ``benchmarks/fold0``, the network trained with the settings of the model that ships on all folds but this one,
and the model that ships, which has seen this fold. It prints the tables of ``quality.md``. ``--peer NAME=LABELS`` adds
label images of another program, ``LABELS/<set>/<image id>.png`` for the sets of ``transformed_sets.py``.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nucseg_ray.imaging.codecs import decode_label_png
from nucseg_ray.imaging.metrics import Matches, bowl_score, match, pool
from nucseg_ray.model.pretrained import PRETRAINED

HERE = Path(__file__).resolve().parent
EVALUATE = HERE.parent / "jobs" / "evaluate.py"
PLAIN = "plain"
COLUMNS = ("images", "nuclei", "AP@0.5", "AP@0.75", "mean AP", "F1@0.5", "PQ@0.5", "Bowl score")
Row = dict[str, float]
# By kind of image; "all" pools them.
Scores = dict[str, Row]


def score_model(model: str, folder: Path, extra: Sequence[str]) -> Scores:
    """Score a model on a set by the project's own command, by kind."""
    with tempfile.TemporaryDirectory() as scores:
        command = [sys.executable, str(EVALUATE), "--model", model, "--data", str(folder / "manifest.csv")]
        subprocess.run([*command, "--output", scores, *extra], check=True, stdout=subprocess.DEVNULL)
        summary: Mapping[str, Any] = json.loads((Path(scores) / "scores.json").read_text())
    return {
        kind: dict(
            zip(
                COLUMNS,
                [
                    group["images"],
                    group["nuclei"],
                    group["ap"][0],
                    group["ap"][5],
                    group["mean_ap"],
                    group["f1"][0],
                    group["panoptic_quality"][0],
                    group["bowl_score"],
                ],
                strict=True,
            )
        )
        for kind, group in summary.items()
    }


def score_labels(labels: Path, folder: Path) -> Scores:
    """Score label images on a set, by kind: what the command does for masks, which have no kinds."""
    matches: dict[str, list[Matches]] = {"all": []}
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            name = f"{row['image_id']}.png"
            truth, found = (decode_label_png((at / name).read_bytes(), name=name) for at in (folder / "masks", labels))
            own = match(truth, found)
            matches["all"].append(own)
            matches.setdefault(row["kind"], []).append(own)
    return {kind: _row(of_kind) for kind, of_kind in sorted(matches.items())}


def _row(matches: Sequence[Matches]) -> Row:
    pooled = pool(matches)
    figures = (pooled.ap[0], pooled.ap[5], pooled.ap.mean(), pooled.f1[0], pooled.panoptic_quality[0])
    counts = (len(matches), pooled.n_truth)
    return dict(zip(COLUMNS, map(float, (*counts, *figures, bowl_score(matches))), strict=True))


def by_kind(name: str, scores: Scores) -> str:
    """Draw the table of one competitor on the plain set."""
    head = [f"### {name}", "", f"| kind | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    return "\n".join([*head, *(f"| {kind} | {' | '.join(_figures(row))} |" for kind, row in scores.items())])


def _figures(row: Row) -> Iterable[str]:
    return (f"{int(value)}" if column in COLUMNS[:2] else f"{value:.3f}" for column, value in row.items())


def by_set(of: Mapping[str, Mapping[str, Scores]]) -> str:
    """Draw the table of all competitors on all sets: mean AP, the Bowl's score, and its part of the plain one's."""
    names = list(of)
    head = f"| set | {' | '.join(f'{name}: mean AP | Bowl score | of plain' for name in names)} |"
    lines = [head, "|---" * (3 * len(names) + 1) + "|"]
    for transformed in of[names[0]]:
        cells = []
        for name in names:
            row, plain = of[name][transformed]["all"], of[name][PLAIN]["all"]
            share = row["Bowl score"] / plain["Bowl score"] if plain["Bowl score"] else np.nan
            cells.append(f"{row['mean AP']:.3f} | {row['Bowl score']:.3f} | {share:.2f}")
        lines.append(f"| {transformed} | {' | '.join(cells)} |")
    return "\n".join(lines)


def make_sets(args: argparse.Namespace, output: Path) -> list[Path]:
    """Write the sets; give their folders, the plain one first."""
    command = [sys.executable, str(HERE / "transformed_sets.py"), "--data", args.data, "--fold", str(args.fold)]
    command += ["--output", str(output), *(["--index", args.index] if args.index else [])]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return [output / name for name in json.loads((output / "sets.json").read_text())["sets"]]


def _peer(text: str) -> tuple[str, Path]:
    name, _, labels = text.partition("=")
    if not (name and labels and Path(labels).is_dir()):
        raise argparse.ArgumentTypeError(f"expected NAME=FOLDER with a folder of label images, found {text!r}")
    return name, Path(labels)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="labelled images, in any layout that training reads")
    parser.add_argument("--index", help="table of their folds and kinds")
    parser.add_argument("--fold", type=int, default=0, help="fold to score on")
    parser.add_argument("--model", default=str(HERE / "fold0"), help="model that has not seen the fold")
    parser.add_argument(
        "--peer", action="append", type=_peer, default=[], metavar="NAME=LABELS", help="label images of a peer"
    )
    parser.add_argument("--sets", type=Path, help="sets that transformed_sets.py wrote; made anew without")
    parser.add_argument("--tta", action="store_true", help="score the model with --tta, too, on the fold as it is")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if args.sets:
            folders = [args.sets / name for name in json.loads((args.sets / "sets.json").read_text())["sets"]]
        else:
            folders = make_sets(args, Path(scratch) / "sets")
        plain = next(folder for folder in folders if folder.name == PLAIN)
        competitors = {"nucseg_ray": {folder.name: score_model(args.model, folder, []) for folder in folders}}
        for name, labels in args.peer:
            competitors[name] = {folder.name: score_labels(labels / folder.name, folder) for folder in folders}
        print(f"## Fold {args.fold}, not seen in training\n")
        for name, of_set in competitors.items():
            print(by_kind(name, of_set[PLAIN]) + "\n")
        if args.tta:
            print(by_kind("nucseg_ray --tta", score_model(args.model, plain, ["--tta"])) + "\n")
        print(f"## Fold {args.fold}, transformed\n\n{by_set(competitors)}\n")
        print("## The model that ships, which has seen these images\n")
        print(by_kind(PRETRAINED, score_model(PRETRAINED, plain, [])))


if __name__ == "__main__":
    main()
