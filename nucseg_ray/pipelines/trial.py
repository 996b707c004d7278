"""One site on its way through every stage, on a worker like those of the run, and nothing of it written."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pyarrow as pa

from nucseg_ray.errors import ChoiceError, InputError, MissingInputError, ModelError, NucsegError, OutputError
from nucseg_ray.imaging.codecs import encode_label_png
from nucseg_ray.imaging.labelling import Labelling
from nucseg_ray.imaging.measure import measure
from nucseg_ray.pipelines.models import ModelFiles
from nucseg_ray.pipelines.network import ActorPool, MapActor
from nucseg_ray.pipelines.rows import unpack
from nucseg_ray.pipelines.site_image import Reading
from nucseg_ray.pipelines.sites import CHOICE, read_batch
from nucseg_ray.storage.atomic import write_bytes
from nucseg_ray.storage.fetch import fetch_bytes
from nucseg_ray.storage.locations import Location

# The first site pays for imports and for compiling the network. Where that is quick, it goes through once more, timed.
QUICK_S = 5.0
# Each stage: what could not be done, and what to do about it.
STAGES = {
    "model": ("load the model", "copy or train the bundle again, or name another --model"),
    "read": ("read the image", "check --input"),
    "network": ("run the network on the image", "try another --runtime or a smaller --tile-px"),
    "label": ("find the nuclei", "train the model again with this version"),
    "measure": ("measure the nuclei", "report it with the image"),
    "encode": ("encode the mask", "report it with the image"),
}


@dataclass(frozen=True, slots=True)
class Order:
    """What to try: ``rows`` of the manifest, the first of them that can be read; ``model`` as for ``MapActor``."""

    rows: pa.Table
    reading: Reading
    probe: Location
    model: ModelFiles
    actors: ActorPool
    labelling: Labelling


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of it. ``site`` is the file of the site that went through, None where none could be read.

    ``diameter_px`` is that of its nuclei, as the network's scale was chosen for it.
    ``predict_s`` is the time of an image where ``at_a_time`` are under way together; ``other_s`` that of reading,
    labelling, measuring and encoding it.
    """

    unreadable: tuple[str, ...] = ()
    site: str | None = None
    n_nuclei: int = 0
    diameter_px: float | None = None
    mask_bytes: int = 0
    table_bytes: int = 0
    predict_s: float = 0.0
    at_a_time: int = 1
    other_s: float = 0.0


def try_site(order: Order) -> Trial | NucsegError:
    """Take one site through every stage; gives the error instead where a stage fails, since Ray would wrap it."""
    stages, site = _Stages(), ""
    try:
        answer_probe(order.probe)
        with stages("model"):
            actor = MapActor(model=order.model, pool=order.actors)
        with stages("read"):
            row, unreadable = _first_readable(order)
        if row is None:
            return Trial(unreadable)
        site = row.column("planes")[0].as_py()[0]
        trial = _through(row, order, actor, stages, copies=1)
        if trial.predict_s + trial.other_s < QUICK_S:
            # The run knows the diameter of a plate's nuclei before it begins.
            actor.assume(trial.diameter_px)
            trial = _through(row, order, actor, stages, copies=order.actors.threads)
        return replace(trial, site=site, unreadable=unreadable)
    except OutputError as error:
        return error
    except Exception as error:
        return _failure(stages.current, site, error)


class _Stages:
    """Knows which stage is under way, and how long each took last."""

    def __init__(self) -> None:
        self.current = ""
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Be in a stage while the block runs."""
        self.current, began = stage, time.monotonic()
        yield
        self.seconds[stage] = time.monotonic() - began


def _through(row: pa.Table, order: Order, actor: MapActor, stages: _Stages, *, copies: int) -> Trial:
    """Take a site through; the network gets so many copies, as it gets the sites of a block, to be kept busy."""
    with stages("read"):
        read = read_batch(row, reading=order.reading)
        image = unpack("image", read, 0)
        if image is None:  # it was there a moment ago
            raise InputError(read.column("error")[0].as_py())
    with stages("network"):
        predicted = actor(pa.concat_tables([read] * copies))
        maps = unpack("maps", predicted, 0)
        if maps is None:
            raise ModelError(predicted.column("error")[0].as_py())
    with stages("label"):
        labels = order.labelling.label(maps, scale=predicted.column("scale")[0].as_py())
    with stages("measure"):
        columns = measure(labels, image)
    with stages("encode"):
        png = encode_label_png(labels)
    return Trial(
        n_nuclei=len(columns["ObjectNumber"]),
        diameter_px=predicted.column("diameter_px")[0].as_py(),
        mask_bytes=len(png),
        table_bytes=sum(column.nbytes for column in columns.values()),
        predict_s=stages.seconds["network"] / copies,
        at_a_time=copies,
        other_s=sum(stages.seconds[stage] for stage in ("read", "label", "measure", "encode")),
    )


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


def _first_readable(order: Order) -> tuple[pa.Table | None, tuple[str, ...]]:
    """Read row by row until one has an image; gives that row of the manifest, and why those before it had none.

    Raises
    ------
    ChoiceError
        None has one, and all of them for the reason that their files do not hold what is asked for.
    """
    unreadable: list[str] = []
    stages = set()
    for number in range(order.rows.num_rows):
        row = order.rows.slice(number, 1)
        read = read_batch(row, reading=order.reading)
        problem = read.column("error")[0].as_py()
        if problem is None:
            return row, tuple(unreadable)
        unreadable.append(problem)
        stages.add(read.column("stage")[0].as_py())
    if stages == {CHOICE}:
        raise ChoiceError(unreadable[0])
    return None, tuple(unreadable)


def _failure(stage: str, site: str, error: Exception) -> NucsegError:
    """Say which stage failed, of which site, and what to do; an error of our own says the last itself."""
    what, remedy = STAGES[stage]
    where = f"preflight, stage {stage}: could not {what}{f' of {site}' if site else ''}: "
    if isinstance(error, NucsegError):
        return type(error)(where + str(error))
    kind = ModelError if stage in ("model", "network") else NucsegError
    return kind(f"{where}{type(error).__name__}: {error}; {remedy}, or begin without a trial with --no-preflight")
