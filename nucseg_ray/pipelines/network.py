"""The actor that runs the network, and how many of it a run may have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import ray
import ray.data

from nucseg_ray.pipelines.models import ModelFiles
from nucseg_ray.pipelines.rows import array_fields, pack, to_table, unpack
from nucseg_ray.pipelines.session import finite_retries

if TYPE_CHECKING:
    from nucseg_ray.model.scaling import ScaledMaps
    from nucseg_ray.model.segmenter import Segmenter

# What an actor needs: 1.7 GB were measured on an image enlarged as far as images are, 1.1 GB on one to half as many
# pixels. Being a reservation that reading tasks do not share, it also keeps Ray from fusing the reading of files into
# the actor.
ACTOR_MEMORY_BYTES = 2 << 30
# What an actor adds to a table.
MAPS_FIELDS = (*array_fields("maps"), pa.field("scale", pa.float64()), pa.field("diameter_px", pa.float64()))


@dataclass(frozen=True, slots=True)
class ActorPool:
    """Processes that hold the network, and what each of them takes of the cluster.

    ``nucleus_diameter_px`` is that of the nuclei in every image, ``nucleus_diameter_um`` the same in micrometres, for
    images whose pixels' size is known; both None: an actor finds it for each image.
    """

    form: str
    actors: int
    cpus: float
    threads: int
    use_gpu: bool
    tile_px: int = 1024
    overlap_px: int = 128
    nucleus_diameter_px: float | None = None
    nucleus_diameter_um: float | None = None
    tta: bool = False

    @property
    def resources(self) -> dict[str, Any]:
        """What one process takes, as Ray's options."""
        return {"num_cpus": self.cpus, "num_gpus": 1 if self.use_gpu else 0, "memory": ACTOR_MEMORY_BYTES}


def load_segmenter(model: ModelFiles, pool: ActorPool) -> Segmenter:
    """Load a model in a process of the pool, once in its life."""
    from nucseg_ray.model.segmenter import Segmenter
    from nucseg_ray.model.tiled_network import Tiling

    tiling = Tiling(tile_px=pool.tile_px, overlap_px=pool.overlap_px)
    segmenter = Segmenter.load(model.folder(), form=pool.form, threads=pool.threads, tiling=tiling, tta=pool.tta)
    model.discard()
    return segmenter


def with_maps(
    sites: ray.data.Dataset,
    *,
    model: ModelFiles,
    pool: ActorPool,
    diameters: Mapping[str, float | None] | None = None,
) -> ray.data.Dataset:
    """Plan to predict the maps of every row that has an ``image``; the columns ``MAPS_FIELDS`` are added.

    ``diameters`` are those of the plates, where they differ (``pool.nucleus_diameter_px`` does not count then).
    A row whose image cannot be predicted gets its reason in ``error``.
    """
    with finite_retries(actors=True) as retries:
        return sites.map_batches(
            MapActor,
            fn_constructor_kwargs={"model": model, "pool": pool, "diameters": diameters},
            # All at once, but no more than there are blocks for.
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=pool.actors, initial_size=pool.actors),
            batch_format="pyarrow",
            batch_size=None,
            **pool.resources,
            **retries,
        )


class MapActor:
    """Holds a loaded model; turns tables with images into tables with maps."""

    def __init__(
        self, *, model: ModelFiles, pool: ActorPool, diameters: Mapping[str, float | None] | None = None
    ) -> None:
        """Load the model, once."""
        self._segmenter = load_segmenter(model, pool)
        self._one_diameter = pool.nucleus_diameter_px
        self._in_um = pool.nucleus_diameter_um
        self._of_plate = diameters

    def __call__(self, table: pa.Table) -> pa.Table:
        """Add the maps of each image; the rest of the table stays as it is."""
        images = {row: unpack("image", table, row) for row in range(table.num_rows)}
        found, problems = self._found(
            {row: image for row, image in images.items() if image is not None}, self._diameters(table)
        )
        errors = [problems.get(row, error) for row, error in enumerate(table.column("error").to_pylist())]
        rows = [_columns(found.get(row)) for row in images]
        maps_table = to_table(rows, pa.schema(MAPS_FIELDS))
        errors_column = table.schema.get_field_index("error")
        table = table.set_column(errors_column, "error", pa.array(errors, pa.string()))
        for field in maps_table.schema:
            table = table.append_column(field, maps_table.column(field.name))
        return table

    def assume(self, diameter_px: float | None) -> None:
        """Take this diameter for every image from now on; None: find it for each."""
        self._one_diameter, self._in_um, self._of_plate = diameter_px, None, None

    def _diameters(self, table: pa.Table) -> list[float | None]:
        if self._in_um is not None:
            # A site that has an image has a size of pixels, too: reading refuses it otherwise.
            return [size and self._in_um / size for size in table.column("pixel_size_um").to_pylist()]
        if self._of_plate is None:
            return [self._one_diameter] * table.num_rows
        return [self._of_plate[plate] for plate in table.column("Metadata_Plate").to_pylist()]

    def _found(
        self, images: dict[int, Any], diameters: list[float | None]
    ) -> tuple[dict[int, ScaledMaps], dict[int, str]]:
        """Predict all images together; where that fails, one by one, to find the one that it fails for."""
        try:
            together = self._segmenter.maps_of(list(images.values()), diameters_px=[diameters[row] for row in images])
            return dict(zip(images, together, strict=True)), {}
        except Exception:
            found, problems = {}, {}
            for row, image in images.items():
                try:
                    (found[row],) = self._segmenter.maps_of([image], diameters_px=[diameters[row]])
                except Exception as error:  # one image that breaks the network is a row, not the end of the run
                    problems[row] = f"predict: {type(error).__name__}: {error}"
            return found, problems


def _columns(found: ScaledMaps | None) -> dict[str, Any]:
    if found is None:
        return {**pack("maps", None), "scale": None, "diameter_px": None}
    return {**pack("maps", found.maps), "scale": found.scale, "diameter_px": found.diameter_px}
