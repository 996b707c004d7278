"""The actor that runs the network, and how many of it a run may have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
import ray.data

from nucseg_ray.pipelines.models import ModelFiles
from nucseg_ray.pipelines.rows import array_fields, pack, to_table, unpack
from nucseg_ray.pipelines.session import finite_retries

# What an actor needs for TensorFlow, the weights and the activations of one tile. Being a reservation that reading
# tasks do not share, it also keeps Ray from fusing the reading of files into the actor.
ACTOR_MEMORY_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class ActorPool:
    """Processes that hold the network, and what each of them takes of the cluster."""

    form: str
    actors: int
    cpus: float
    threads: int
    use_gpu: bool
    tile_px: int = 1024
    overlap_px: int = 128


def with_maps(sites: ray.data.Dataset, *, model: ModelFiles, pool: ActorPool) -> ray.data.Dataset:
    """Plan to predict the maps of every row that has an ``image``; the three ``maps`` columns are added.

    A row whose image cannot be predicted gets its reason in ``error``.
    """
    with finite_retries(actors=True) as retries:
        return sites.map_batches(
            MapActor,
            fn_constructor_kwargs={"model": model, "pool": pool},
            # All at once, but no more than there are blocks for.
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=pool.actors, initial_size=pool.actors),
            batch_format="pyarrow",
            batch_size=None,
            num_cpus=pool.cpus,
            num_gpus=1 if pool.use_gpu else 0,
            memory=ACTOR_MEMORY_BYTES,
            **retries,
        )


class MapActor:
    """Holds a loaded model; turns tables with images into tables with maps."""

    def __init__(self, *, model: ModelFiles, pool: ActorPool) -> None:
        """Load the model, once."""
        from nucseg_ray.model.segmenter import Segmenter, Tiling

        tiling = Tiling(tile_px=pool.tile_px, overlap_px=pool.overlap_px)
        self._segmenter = Segmenter.load(model.folder(), form=pool.form, threads=pool.threads, tiling=tiling)
        model.discard()

    def __call__(self, table: pa.Table) -> pa.Table:
        """Add the maps of each image; the rest of the table stays as it is."""
        images = {row: unpack("image", table, row) for row in range(table.num_rows)}
        maps, problems = self._maps({row: image for row, image in images.items() if image is not None})
        errors = [problems.get(row, error) for row, error in enumerate(table.column("error").to_pylist())]
        rows = [pack("maps", maps.get(row)) for row in images]
        maps_table = to_table(rows, pa.schema(array_fields("maps")))
        errors_column = table.schema.get_field_index("error")
        table = table.set_column(errors_column, "error", pa.array(errors, pa.string()))
        for field in maps_table.schema:
            table = table.append_column(field, maps_table.column(field.name))
        return table

    def _maps(self, images: dict[int, Any]) -> tuple[dict[int, Any], dict[int, str]]:
        """Predict all images together; where that fails, one by one, to find the one that it fails for."""
        try:
            return dict(zip(images, self._segmenter.maps_of(list(images.values())), strict=True)), {}
        except Exception:
            maps, problems = {}, {}
            for row, image in images.items():
                try:
                    maps[row] = self._segmenter.maps(image)
                except Exception as error:  # one image that breaks the network is a row, not the end of the run
                    problems[row] = f"predict: {type(error).__name__}: {error}"
            return maps, problems
