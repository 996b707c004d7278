"""What a batch run is to do, decided before its output is touched: the model, the sites, and what is made of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nucseg_ray.config import AUTO, as_diameter
from nucseg_ray.config_predict import ESTIMATE, NO_ILLUMINATION, PredictSettings
from nucseg_ray.imaging.labelling import Labelling
from nucseg_ray.model.bundle import Bundle
from nucseg_ray.model.predictor import choose_form
from nucseg_ray.pipelines.models import ModelFiles, fetch_bundle
from nucseg_ray.pipelines.network import ActorPool
from nucseg_ray.pipelines.resources import check_room
from nucseg_ray.pipelines.run_plan import as_choice, plan_run, reading_of
from nucseg_ray.pipelines.run_record import ILLUMINATION
from nucseg_ray.pipelines.site_image import Reading
from nucseg_ray.plates.planning import Plan
from nucseg_ray.storage.illuminations import Illuminations
from nucseg_ray.storage.locations import Location


@dataclass(frozen=True, slots=True)
class Batch:
    """A run as it was decided; ``decisive`` is everything that a mask depends on, as the output records it."""

    settings: PredictSettings
    out: Location
    files: ModelFiles
    actors: ActorPool
    planned: Plan
    reading: Reading
    labelling: Labelling
    decisive: Mapping[str, str | float | None]

    @property
    def recorded_lights(self) -> Illuminations:
        """Where the output keeps the light of its plates."""
        return Illuminations(self.out / ILLUMINATION)


def decide(settings: PredictSettings) -> Batch:
    """Fetch the model, look at the input and settle what is to be done. Ray must be running.

    Raises
    ------
    NucsegError
        The input or the model cannot be used, or the cluster has no room for the actors.
    """
    bundle, files = fetch_bundle(settings.model)
    actors = _actors(settings, bundle)
    check_room(process="actor", count=actors.actors, cpus_each=actors.cpus, use_gpu=actors.use_gpu)
    planned = plan_run(settings)
    return Batch(
        settings=settings,
        out=Location(settings.output),
        files=files,
        actors=actors,
        planned=planned,
        reading=reading_of(settings, planned),
        labelling=Labelling(bundle.labels, min_area_px=settings.min_area_px, drop_border=settings.drop_border),
        decisive=_decisive(settings, planned, bundle, actors.form),
    )


def _actors(settings: PredictSettings, bundle: Bundle) -> ActorPool:
    return ActorPool(
        form=choose_form(bundle, runtime=settings.runtime, use_gpu=settings.use_gpu),
        actors=settings.actors,
        cpus=settings.cpus_per_actor,
        threads=settings.threads_per_actor,
        use_gpu=settings.use_gpu,
        tile_px=settings.tile_px,
        overlap_px=settings.overlap_px,
        nucleus_diameter_px=as_diameter(settings.nucleus_diameter_px),
        nucleus_diameter_um=settings.nucleus_diameter_um,
        tta=settings.tta,
    )


def _decisive(settings: PredictSettings, planned: Plan, bundle: Bundle, form: str) -> dict[str, str | float | None]:
    light = settings.illumination
    return {
        "input": Location(settings.input).uri,
        "scheme": planned.scheme,
        "channel": planned.channel,
        "z": as_choice(settings).z,
        "illumination": light if light in (NO_ILLUMINATION, ESTIMATE) else Location(light).uri,
        "masks": settings.masks,
        "model": bundle.fingerprint,
        "network": form,
        "tile_px": settings.tile_px,
        "overlap_px": settings.overlap_px,
        "pixel_size_um": settings.pixel_size_um,
        "nucleus_diameter_px": as_diameter(settings.nucleus_diameter_px) or AUTO,
        "nucleus_diameter_um": settings.nucleus_diameter_um,
        "min_area_px": settings.min_area_px,
        "drop_border": settings.drop_border,
        "tta": settings.tta,
    }
