"""Put a trained model into the package: its weights as float16, and every form of its network made again from these.

    python benchmarks/ship_pretrained.py --model OUT --data DATA --index INDEX

writes the bundle into ``nucseg_ray/pretrained``, with the record of its training, and says how its labels agree with
those of the trained one. The card and the pictures that lie there are left alone. With ``--fold 0 --output
benchmarks/fold0`` it does the same with the network that has not seen fold 0, and scores each form of it there.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nucseg_ray.config import TrainSettings
from nucseg_ray.errors import ModelError, NucsegError
from nucseg_ray.imaging.metrics import match, pool
from nucseg_ray.model.bundle import FORMS, REFERENCE, Bundle, record_metrics, round_weights, write_rounded
from nucseg_ray.model.openvino_forms import export_forms
from nucseg_ray.model.predictor import runs_here
from nucseg_ray.model.pretrained import FOLDER
from nucseg_ray.model.segmenter import Segmenter
from nucseg_ray.pipelines.bundle_forms import calibration_crops, score_forms
from nucseg_ray.pipelines.crops import prepare
from nucseg_ray.pipelines.models import local_bundle
from nucseg_ray.pipelines.samples import read_samples, refuse_unreadable
from nucseg_ray.pipelines.session import connected
from nucseg_ray.pipelines.splitting import by_known_fold
from nucseg_ray.storage.labelled_images import TrainingSet
from nucseg_ray.storage.locations import Location
from nucseg_ray.storage.training_sets import find_training_set


def calibration(bundle: Bundle, learned: TrainingSet) -> np.ndarray:
    """Give what the integers are calibrated on: crops ``(N, H, W, 3)`` uint8 of what the model learned from."""
    prepared = prepare(read_samples(learned), normalisation=bundle.normalisation)
    refuse_unreadable(prepared.errors)
    return calibration_crops(prepared, diameter_px=bundle.diameter_px)


def ship(trained: Bundle, crops: np.ndarray, folder: Path) -> Bundle:
    """Write the rounded bundle into a folder."""
    weights = {name: array.astype(np.float32) for name, array in round_weights(trained).items()}
    forms = export_forms(trained.architecture, weights, [crop.astype(np.float32) / 255 for crop in crops])
    missing = {name for names in FORMS.values() for name in names} - set(forms)
    if missing:
        raise ModelError(f"expected every form of the network, {sorted(missing)} missing; install nucseg_ray[int8]")
    return write_rounded(folder, trained, forms)


def agreement(trained: Bundle, shipped: Bundle, crops: np.ndarray) -> Iterator[str]:
    """Say how well the nuclei of each form match those of the trained reference, before the rounding and after it."""
    reference = Segmenter.load(trained.folder, form=REFERENCE)
    expected = [reference.segment(crop) for crop in crops]
    yield "mean AP against the trained model in TensorFlow:"
    for told, bundle in (("trained", trained), ("shipped", shipped)):
        for form in (REFERENCE, *filter(runs_here, bundle.forms)):
            segmenter = Segmenter.load(bundle.folder, form=form)
            matched = pool(match(labels, segmenter.segment(crop)) for labels, crop in zip(expected, crops, strict=True))
            yield f"  {told} {form}: {matched.ap.mean():.4f}"


def main() -> None:
    """Read, round, write, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="folder or URI of the trained bundle")
    parser.add_argument("--data", required=True, help="labelled images that it was trained on, as train takes them")
    parser.add_argument("--index", help="CSV with a row an image: ImageId and any of group, kind, fold")
    parser.add_argument("--fold", type=int, help="the fold that it was not trained on")
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder to write into")
    args = parser.parse_args()
    try:
        trained = local_bundle(args.model)
        found = find_training_set(Location(args.data), index=Location(args.index) if args.index else None)
        learned, held_out = (found.samples, ()) if args.fold is None else by_known_fold(found.samples, args.fold)
        with connected():
            crops = calibration(trained, found.only(learned))
            shipped = ship(trained, crops, args.output)
            if held_out:
                settings = TrainSettings(data=args.data, output=str(args.output))
                scores = score_forms(shipped, found.only(held_out), settings)
                summaries = {form: of_form.summary for form, of_form in scores.items()}
                record_metrics(args.output, summaries, default_form=shipped.default_form)
    except NucsegError as error:
        parser.error(str(error))
    n_bytes = sum(path.stat().st_size for path in args.output.iterdir())
    n_weights = sum(array.size for array in shipped.weights().values())
    print(
        f"{args.output}: model {shipped.fingerprint}, {n_weights / 1e6:.2f} million parameters, {n_bytes / 1e6:.1f} MB"
    )
    print("\n".join(agreement(trained, shipped, crops)))


if __name__ == "__main__":
    main()
