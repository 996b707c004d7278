"""Scores: a model on labelled images, or label masks on disk against the truth."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data

from nucseg_ray.config import EvaluateSettings, as_diameter
from nucseg_ray.errors import InputError, UsageError
from nucseg_ray.imaging.codecs import decode_label_png
from nucseg_ray.imaging.labels import LabelVariant
from nucseg_ray.imaging.metrics import THRESHOLDS, Matches, bowl_score, match, pool
from nucseg_ray.model.bundle import Bundle
from nucseg_ray.model.predictor import choose_form
from nucseg_ray.pipelines.models import ModelFiles, fetch_bundle
from nucseg_ray.pipelines.network import ActorPool, with_maps
from nucseg_ray.pipelines.resources import check_room
from nucseg_ray.pipelines.rows import unpack
from nucseg_ray.pipelines.samples import read_samples, refuse_unreadable
from nucseg_ray.report.curves import ap_curve
from nucseg_ray.storage.atomic import write_bytes, write_json
from nucseg_ray.storage.fetch import fetch_many
from nucseg_ray.storage.listing import list_files
from nucseg_ray.storage.locations import Location
from nucseg_ray.storage.training_sets import find_training_set

ALL = "all"
MASKS_PER_TASK = 16
_COUNTS = ("tp", "fp", "fn", "iou_sum")
_PIXELS = ("intersection_px", "truth_px", "predicted_px")
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Scores:
    """The matches of each image: ``(image id, kind, matches)``, sorted by id."""

    images: tuple[tuple[str, str, Matches], ...]

    @property
    def summary(self) -> dict[str, Any]:
        """Scores over all images, and for each kind where there are several."""
        kinds = sorted({kind for _, kind, _ in self.images})
        groups = {ALL: [matches for _, _, matches in self.images]}
        if len(kinds) > 1:
            groups |= {kind: [matches for _, of, matches in self.images if of == kind] for kind in kinds}
        return {name: _summarise(matches) for name, matches in groups.items()}


def run_evaluate(settings: EvaluateSettings) -> dict[str, Any]:
    """Score, write ``scores.json``, ``images.csv`` and ``ap_curve.png``, and give the summary. Ray must be running.

    Raises
    ------
    NucsegError
        The flags contradict each other, or the model or the images cannot be used.
    """
    by_model = settings.model is not None and settings.data is not None
    by_masks = settings.masks is not None and settings.truth is not None
    if by_model == by_masks or ((settings.model or settings.data or "") and (settings.masks or settings.truth or "")):
        raise UsageError("expected either --model with --data, or --masks with --truth")
    output = Location(settings.output)
    scores = (
        _score_flags_model(settings)
        if by_model
        else _score_masks(Location(settings.masks or ""), Location(settings.truth or ""))
    )
    write_scores(output, scores)
    log_scores(scores.summary)
    logger.info("scores, table of images and picture are in %s", output)
    return scores.summary


def score_model(bundle: Bundle, samples: ray.data.Dataset, actors: ActorPool, *, files: ModelFiles) -> Scores:
    """Predict labelled images (rows of ``read_samples``) and match them with the truth.

    Raises
    ------
    InputError
        An image cannot be read or predicted: a score over the others would not be the score that was asked for.
    """
    matched = with_maps(samples, model=files, pool=actors).map_batches(
        _match_batch, fn_kwargs={"variant": bundle.labels}, batch_format="pyarrow", batch_size=None
    )
    return _collect(matched)


def write_scores(output: Location, scores: Scores) -> None:
    """Write ``scores.json``, ``images.csv`` and ``ap_curve.png`` into a folder."""
    summary = scores.summary
    write_json(output / "scores.json", summary)
    write_bytes(output / "images.csv", _table_of_images(scores).encode())
    curves = {name: group["ap"] for name, group in summary.items()}
    write_bytes(output / "ap_curve.png", ap_curve(THRESHOLDS, curves))


def log_scores(summary: Mapping[str, Mapping[str, Any]]) -> None:
    """Log one line for each group of images."""
    for name, group in summary.items():
        logger.info(
            "%-24s %4d images  AP@0.5 %.3f  AP@0.75 %.3f  mean AP %.3f  F1@0.5 %.3f  PQ@0.5 %.3f  "
            "Bowl score %.3f  Dice %.3f",
            name,
            group["images"],
            group["ap"][0],
            group["ap"][5],
            group["mean_ap"],
            group["f1"][0],
            group["panoptic_quality"][0],
            group["bowl_score"],
            group["dice"],
        )


def _score_flags_model(settings: EvaluateSettings) -> Scores:
    bundle, files = fetch_bundle(settings.model or "")
    actors = ActorPool(
        form=choose_form(bundle, runtime=settings.runtime, use_gpu=settings.use_gpu),
        actors=settings.actors,
        cpus=settings.cpus_per_actor,
        threads=settings.threads_per_actor,
        use_gpu=settings.use_gpu,
        nucleus_diameter_px=as_diameter(settings.nucleus_diameter_px),
        tta=settings.tta,
    )
    check_room(process="actor", count=actors.actors, cpus_each=actors.cpus, use_gpu=actors.use_gpu)
    index = Location(settings.index) if settings.index else None
    found = find_training_set(Location(settings.data or ""), index=index)
    samples = [sample for sample in found.samples if settings.fold is None or sample.fold == settings.fold]
    if not samples:
        known = sorted({sample.fold for sample in found.samples if sample.fold is not None})
        raise UsageError(f"--fold {settings.fold}: no image is in it; found the folds {known or 'none (give --index)'}")
    logger.info("%s: %s; scoring %d images", found.root, found.layout, len(samples))
    return score_model(bundle, read_samples(found.only(samples)), actors, files=files)


def _score_masks(masks: Location, truth: Location) -> Scores:
    names = [path for path, _ in list_files(truth) if path.endswith(".png")]
    predicted = {path for path, _ in list_files(masks)}
    missing = [name for name in names if name not in predicted]
    if not names:
        raise InputError(f"{truth}: expected label images as PNG, found none; check --truth")
    if missing:
        raise InputError(
            f"{masks}: {len(missing)} of {len(names)} true label images have no mask of the same path (such as "
            f"{missing[0]}); check --masks, or finish the run that writes it"
        )
    logger.info("scoring %d masks of %s against %s", len(names), masks, truth)
    blocks = -(-len(names) // MASKS_PER_TASK)
    rows = ray.data.from_arrow(pa.table({"name": pa.array(names, pa.string())}), override_num_blocks=blocks)
    return _collect(
        rows.map_batches(
            _match_masks, fn_kwargs={"masks": masks, "truth": truth}, batch_format="pyarrow", batch_size=None
        )
    )


def _match_batch(table: pa.Table, *, variant: LabelVariant) -> pa.Table:
    rows = []
    for row, image_id in enumerate(table.column("image_id").to_pylist()):
        error = table.column("error")[row].as_py()
        truth, maps = unpack("labels", table, row), unpack("maps", table, row)
        scale = table.column("scale")[row].as_py()
        matches = match(truth, variant.label(maps, scale=scale)) if truth is not None and maps is not None else None
        rows.append(_row(image_id, table.column("kind")[row].as_py(), matches, error))
    return pa.Table.from_pylist(rows)


def _match_masks(table: pa.Table, *, masks: Location, truth: Location) -> pa.Table:
    names = table.column("name").to_pylist()
    rows = []
    for name, predicted, true in zip(names, fetch_many(masks, names), fetch_many(truth, names), strict=True):
        try:
            if isinstance(predicted, InputError):
                raise predicted
            if isinstance(true, InputError):
                raise true
            matches = match(decode_label_png(true, name=name), decode_label_png(predicted, name=name))
            rows.append(_row(name, "image", matches, None))
        except InputError as error:
            rows.append(_row(name, "image", None, f"{name}: {error}"))
    return pa.Table.from_pylist(rows)


def _row(image_id: str, kind: str, matches: Matches | None, error: str | None) -> dict[str, Any]:
    empty = [0.0] * len(THRESHOLDS)
    return {
        "image_id": image_id,
        "kind": kind,
        "error": error or "",
        **{name: empty if matches is None else [float(x) for x in getattr(matches, name)] for name in _COUNTS},
        **{name: 0 if matches is None else int(getattr(matches, name)) for name in _PIXELS},
    }


def _collect(matched: ray.data.Dataset) -> Scores:
    matched.context.enable_progress_bars = False
    rows = sorted(matched.take_all(), key=lambda row: row["image_id"])
    refuse_unreadable([row["error"] for row in rows if row["error"]])
    return Scores(tuple((row["image_id"], row["kind"], _matches(row)) for row in rows))


def _matches(row: Mapping[str, Any]) -> Matches:
    tp, fp, fn = (np.asarray(row[name], np.int64) for name in ("tp", "fp", "fn"))
    return Matches(tp, fp, fn, np.asarray(row["iou_sum"], np.float64), *(int(row[name]) for name in _PIXELS))


def _summarise(matches: Sequence[Matches]) -> dict[str, Any]:
    """Pool the nuclei of all images, except in the Bowl's score, where each image counts the same."""
    pooled = pool(matches)
    per_threshold = ("ap", "precision", "recall", "f1", "panoptic_quality")
    return {
        "images": len(matches),
        "nuclei": pooled.n_truth,
        "predicted": pooled.n_predicted,
        "thresholds": list(THRESHOLDS),
        **{name: [round(float(x), 6) for x in getattr(pooled, name)] for name in per_threshold},
        "mean_ap": round(float(pooled.ap.mean()), 6),
        "bowl_score": round(bowl_score(matches), 6),
        "dice": round(pooled.dice, 6),
        "pixel_iou": round(pooled.pixel_iou, 6),
    }


def _table_of_images(scores: Scores) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image_id", "kind", "nuclei", "predicted", "ap50", "ap75", "mean_ap", "f1_50", "pq_50", "dice"])
    for image_id, kind, matches in scores.images:
        ap = matches.ap
        figures = [ap[0], ap[5], ap.mean(), matches.f1[0], matches.panoptic_quality[0], matches.dice]
        writer.writerow(
            [image_id, kind, matches.n_truth, matches.n_predicted, *(f"{figure:.4f}" for figure in figures)]
        )
    return text.getvalue()
