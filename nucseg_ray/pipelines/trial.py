"""One site on its way through every stage, on a worker like those of the run, and nothing of it written."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from numpy.typing import NDArray

from nucseg_ray.errors import MissingInputError, ModelError, NucsegError, OutputError
from nucseg_ray.imaging.codecs import encode_label_png
from nucseg_ray.imaging.labels import LabelVariant
from nucseg_ray.imaging.measure import measure
from nucseg_ray.pipelines.network import ActorPool, MapActor
from nucseg_ray.pipelines.rows import unpack
from nucseg_ray.pipelines.sites import read_batch
from nucseg_ray.storage.atomic import write_bytes
from nucseg_ray.storage.fetch import fetch_bytes
from nucseg_ray.storage.locations import Location

# The first image through a network pays for its compilation. Where that is quick, others are sent after it and timed.
QUICK_S = 1.0
# Each stage: what could not be done, and what to do about it.
STAGES = {
    "model": ("load the model", "copy or train the bundle again, or name another --model"),
    "read": ("read", "check --input"),
    "network": ("run the network", "try another --runtime or a smaller --tile-px"),
    "label": ("turn maps into labels", "train the model again with this version"),
    "measure": ("measure the nuclei", "report it with the image"),
    "encode": ("encode the mask", "report it with the image"),
}


@dataclass(frozen=True, slots=True)
class Order:
    """What to try: ``rows`` of the manifest, the first of them that can be read; ``model`` as for ``MapActor``."""

    rows: pa.Table
    root: Location
    probe: Location
    model: Any
    actors: ActorPool
    labels: LabelVariant


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of it. ``site`` is the file of the site that went through, None where none could be read.

    ``predict_s`` is the time of an image where ``at_a_time`` are under way together; ``other_s`` that of reading,
    labelling, measuring and encoding it.
    """

    unreadable: tuple[str, ...]
    site: str | None = None
    n_nuclei: int = 0
    mask_bytes: int = 0
    table_bytes: int = 0
    predict_s: float = 0.0
    at_a_time: int = 1
    other_s: float = 0.0


def try_site(order: Order) -> Trial | NucsegError:
    """Take one site through every stage; gives the error instead where a stage fails, since Ray would wrap it."""
    stage, site = "model", ""
    try:
        answer_probe(order.probe)
        actor = MapActor(model=order.model, pool=order.actors)
        stage, began = "read", time.monotonic()
        found, unreadable = _first_readable(order)
        if found is None:
            return Trial(unreadable)
        read, image, site = found
        other_s = time.monotonic() - began
        stage = "network"
        maps, predict_s, at_a_time = _predict(actor, read, order.actors)
        stage, began = "label", time.monotonic()
        labels = order.labels.label(maps)
        stage = "measure"
        columns = measure(labels, image)
        stage = "encode"
        png = encode_label_png(labels)
        return Trial(
            unreadable,
            site=site,
            n_nuclei=len(columns["ObjectNumber"]),
            mask_bytes=len(png),
            table_bytes=sum(column.nbytes for column in columns.values()),
            predict_s=predict_s,
            at_a_time=at_a_time,
            other_s=other_s + time.monotonic() - began,
        )
    except OutputError as error:
        return error
    except Exception as error:
        return _failure(stage, site, error)


def answer_probe(probe: Location) -> None:
    """Check that this machine sees the driver's file in the output, and write an answer over it.

    Raises
    ------
    OutputError
        It does not, or may not write there.
    """
    try:
        question = fetch_bytes(probe)
    except MissingInputError:
        raise OutputError(
            f"{probe.parent}: what the command writes there is not there on the worker {socket.gethostname()}; name an "
            "--output that every node sees: a shared folder, or a URI such as s3://bucket/folder"
        ) from None
    write_bytes(probe, answer_to(question))


def answer_to(question: bytes) -> bytes:
    """Give what a worker writes over the driver's bytes."""
    return question[::-1]


def _first_readable(order: Order) -> tuple[tuple[pa.Table, NDArray[Any], str] | None, tuple[str, ...]]:
    """Read row by row until one has an image; gives its row, image and file, and why those before it had none."""
    unreadable: list[str] = []
    for row in range(order.rows.num_rows):
        read = read_batch(order.rows.slice(row, 1), root=order.root)
        image = unpack("image", read, 0)
        if image is not None:
            return (read, image, order.rows.column("planes")[row].as_py()[0]), tuple(unreadable)
        unreadable.append(read.column("error")[0].as_py())
    return None, tuple(unreadable)


def _predict(actor: MapActor, read: pa.Table, pool: ActorPool) -> tuple[Any, float, int]:
    """Predict a site's maps; gives them, and the seconds that an image takes where so many are under way together."""
    began = time.monotonic()
    predicted = actor(read)
    first_s = time.monotonic() - began
    maps = unpack("maps", predicted, 0)
    if maps is None:
        raise ModelError(predicted.column("error")[0].as_py())
    if first_s > QUICK_S:
        return maps, first_s, 1
    began = time.monotonic()
    actor(pa.concat_tables([read] * pool.threads))
    return maps, (time.monotonic() - began) / pool.threads, pool.threads


def _failure(stage: str, site: str, error: Exception) -> NucsegError:
    what, remedy = STAGES[stage]
    told = str(error) if isinstance(error, NucsegError) else f"{type(error).__name__}: {error}; {remedy}"
    message = f"preflight: could not {what}{' of ' + site if site else ''} (stage {stage}): {told}"
    return type(error)(message) if isinstance(error, NucsegError) else _CLASSES.get(stage, NucsegError)(message)


_CLASSES = {"model": ModelError, "network": ModelError}
