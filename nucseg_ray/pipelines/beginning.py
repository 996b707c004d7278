"""What a training begins with: random weights, an encoder that learned elsewhere, or a whole model with its labels."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import ray

from nucseg_ray.errors import InputError, ModelError, UsageError, WeightsError
from nucseg_ray.imaging.labels import LabelVariant
from nucseg_ray.imaging.normalise import Normalisation
from nucseg_ray.model.architecture import Architecture
from nucseg_ray.model.bundle import Bundle
from nucseg_ray.model.pretrained import PRETRAINED
from nucseg_ray.pipelines.models import holds_bundle, local_bundle
from nucseg_ray.storage.fetch import fetch_bytes
from nucseg_ray.storage.locations import Location

# What unet.initial_weights knows by name.
_KNOWN = ("imagenet", "none")
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The network that a training is to make, the pixels it is to see, and the label settings it would begin with."""

    architecture: Architecture
    normalisation: Normalisation
    diameter_px: float
    labels: LabelVariant


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a training begins with: a reference to the weights, and label settings."""

    weights: Any
    labels: LabelVariant


def beginning(wanted: Wanted, *, named: str, seed: int, whole: bool = False) -> Beginning:
    """Give what all workers begin with: the weights are built once, so that they are the same.

    ``named`` is the value of ``--encoder-weights``; ``whole``: only a model of this very architecture will do. Where it
    is one, its label settings go on, too. Ray must be running.

    Raises
    ------
    InputError, ModelError
        There is nothing of that name, or it is not in order.
    UsageError
        It is not the whole model asked for.
    WeightsError
        The weights cannot be downloaded, or do not fit the network.
    """
    architecture, source = wanted.architecture, named if named in _KNOWN else _read(named)
    if whole and not (isinstance(source, Bundle) and source.architecture == architecture):
        raise UsageError(
            f"--keep mean: expected --encoder-weights to name a model with the maps and widths of this network, found "
            f"{named}; a mean with weights that are partly random is of no use: give {PRETRAINED} or the folder of a "
            "model, or --keep best"
        )
    if isinstance(source, Bundle):
        _tell_what_is_kept(source, wanted)
        task = _go_on_from.remote(architecture, source.weights(), source.architecture, seed)
    else:
        task = _build.remote(architecture, source, seed)
    weights, error = ray.get(task)
    if error is not None:
        raise WeightsError(f"--encoder-weights {named}: {error}")
    labels = source.labels if isinstance(source, Bundle) and source.architecture == architecture else wanted.labels
    return Beginning(ray.put(weights), labels)


def _read(named: str) -> Bundle | bytes:
    """Read a bundle, or the bytes of a file."""
    is_model = named == PRETRAINED or holds_bundle(Location(named))
    try:
        return local_bundle(named) if is_model else fetch_bytes(Location(named))
    except (InputError, ModelError) as error:
        told = str(error)
        if not is_model and isinstance(error.__cause__, FileNotFoundError | IsADirectoryError):
            told = (
                f"no such file or model; expected imagenet, none, {PRETRAINED}, or a path or URI of a Keras no-top "
                "HDF5 file or of a folder with a model bundle"
            )
        raise type(error)(f"--encoder-weights {named}: {told}") from error


def _tell_what_is_kept(donor: Bundle, wanted: Wanted) -> None:
    if donor.architecture == wanted.architecture:
        logger.info("going on from model %s: encoder, decoder, maps and label settings", donor.fingerprint)
    else:
        theirs, ours = donor.architecture.map_names, wanted.architecture.map_names
        why = "its decoder has other widths" if theirs == ours else f"its maps are {theirs}, this network's {ours}"
        logger.info("going on from the encoder of model %s; the decoder begins anew: %s", donor.fingerprint, why)
    sees, would_see = (
        f"--nucleus-diameter-px {of.diameter_px:g} --normalisation {of.normalisation.kind}" for of in (donor, wanted)
    )
    if sees != would_see:
        logger.warning(
            "model %s learned with %s, and would go on with %s: it has to learn that, too; for other images of the "
            "same size give what it learned with",
            donor.fingerprint,
            sees,
            would_see,
        )


# The two tasks give an error as a value: Ray would wrap the exception and lose its type.
@ray.remote(num_cpus=1)
def _build(architecture: Architecture, source: str | bytes, seed: int) -> tuple[Any, str | None]:
    from nucseg_ray.model import unet

    try:
        return unet.initial_weights(architecture, encoder=source, seed=seed), None
    except WeightsError as error:
        return None, str(error)


@ray.remote(num_cpus=1)
def _go_on_from(architecture: Architecture, weights: Any, of: Architecture, seed: int) -> tuple[Any, str | None]:
    from nucseg_ray.model import unet

    try:
        return unet.weights_from_model(architecture, weights, of=of, seed=seed), None
    except WeightsError as error:
        return None, str(error)
