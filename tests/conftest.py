"""Fixtures that every room's tests share.

Importing this file loads neither Ray nor TensorFlow: the quick rooms' tests must stay quick.
"""

from __future__ import annotations

import io
import json
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# A local ``ray.init()`` turns token authentication on and writes a token file, which a later ``ray start`` picks up:
# the first and the second test run would differ. Set before anything imports Ray; subprocesses inherit it.
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# Ray says with a FutureWarning that it will stop hiding GPUs from tasks that ask for none. Take the new behaviour.
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

REALDATA_FOLDERS = ("dsb2018", "plates")


def _realdata_folder() -> Path:
    named = os.environ.get("NUCSEG_REALDATA")
    return Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def realdata() -> Path:
    """Folder of the real images; tests that ask for it are skipped where it is absent."""
    folder = _realdata_folder()
    missing = [name for name in REALDATA_FOLDERS if not (folder / name).is_dir()]
    if missing:
        pytest.skip(
            f"no real images: expected the folders {' and '.join(REALDATA_FOLDERS)} in {folder}, "
            f"{' and '.join(missing)} missing; name another folder with NUCSEG_REALDATA"
        )
    return folder


@pytest.fixture(autouse=True, scope="session")
def no_wait_between_looks() -> Iterator[None]:
    """What tests write is young, so each run looks twice at it; nothing else writes there meanwhile."""
    from nucseg_ray.storage import settling

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settling, "BETWEEN_LOOKS_S", 0.0)
        yield


@pytest.fixture(scope="session")
def ray_session(s3_server: str) -> Iterator[None]:
    """Run one small local Ray for all tests that need it; its workers know the S3 server."""
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Run an S3 server (moto's) on a free port of this machine; its address. Every process started later knows it."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield environment["AWS_ENDPOINT_URL"]
    server.stop()


@pytest.fixture
def bucket(s3_server: str) -> str:
    """Make a bucket of its own; its ``s3://`` URI."""
    import fsspec

    name = f"bucket-{uuid.uuid4().hex[:12]}"
    fsspec.filesystem("s3", use_listings_cache=False, max_concurrency=1).mkdir(name)
    return f"s3://{name}"


TINY_TRAINING: dict[str, Any] = {
    "encoder_weights": "none",
    "epochs": 3,
    "crops_per_epoch": 480,
    "crop_px": 64,
    "nucleus_diameter_px": 30.0,
    "batch_size": 8,
    "learning_rate": 3e-3,
    "pictures": 2,
}
TINY_LOOK: dict[str, Any] = {"shape_px": (128, 128), "nuclei": (4, 10), "radius_px": (7.0, 11.0)}


@pytest.fixture(scope="session")
def tiny_set(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of 24 synthetic labelled images, in pairs, of the look ``TINY_LOOK``."""
    from nucseg_ray.config_synthesize import SynthesizeSettings
    from nucseg_ray.pipelines.synthesis import run_synthesize

    folder = tmp_path_factory.mktemp("tiny") / "set"
    run_synthesize(SynthesizeSettings(output=str(folder), layout="paired", images=24, bit_depth=8, seed=7, **TINY_LOOK))
    return folder


@pytest.fixture(scope="session")
def tiny_model(tiny_set: Path) -> Path:
    """Everything a short training on ``tiny_set`` wrote: a bundle that finds most nuclei of such images."""
    from nucseg_ray.config import TrainSettings
    from nucseg_ray.pipelines.training import run_train

    folder = tiny_set.parent / "model"
    run_train(TrainSettings(data=str(tiny_set), output=str(folder), **TINY_TRAINING))
    return folder


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended: its exit code, and its lines on stdout and stderr (logging apart)."""

    code: int
    printed: list[str]
    said: list[str]


@pytest.fixture(scope="session")
def call(ray_session: None) -> Callable[..., Ended]:
    """Call a command such as ``commands.predict`` with its flags, in this process and on the Ray that is running."""
    from nucseg_ray import commands

    def call_command(command: Callable[[Sequence[str]], int], *flags: str | Path) -> Ended:
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.setattr(commands, "_session", nullcontext)
            code = command([str(flag) for flag in flags])
        return Ended(code, out.getvalue().splitlines(), err.getvalue().splitlines())

    return call_command


@pytest.fixture(scope="session")
def plate(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder that holds a synthetic plate ``P1`` of 24 wells, 2 of them empty, and its ``truth``."""
    from nucseg_ray.config_synthesize import SynthesizeSettings
    from nucseg_ray.pipelines.synthesis import run_synthesize

    folder = tmp_path_factory.mktemp("plate")
    run_synthesize(
        SynthesizeSettings(
            output=str(folder), kind="plate", plate="P1", wells=24, empty_wells=2, bit_depth=8, seed=3, **TINY_LOOK
        )
    )
    return folder


@pytest.fixture(scope="session")
def segment(tiny_model: Path) -> Callable[..., Any]:
    """Decode and segment one file with ``tiny_model`` in this process: what a plain loop over files does.

    With ``out``, at the scale that a run into this output decided on for the plate, which is the file's folder.
    """
    from nucseg_ray.imaging.codecs import decode_image
    from nucseg_ray.model.segmenter import Segmenter
    from nucseg_ray.model.tiled_network import Tiling

    def segment_file(path: Path, *, out: Path | None = None, **tiling: int) -> Any:
        diameter = None if out is None else json.loads((out / "diameters.json").read_text())[path.parent.name]
        if tuple(tiling.items()) not in loaded:
            # As many threads as a run's actor has: sums are then added up in the same order.
            loaded[tuple(tiling.items())] = Segmenter.load(tiny_model, threads=2, tiling=Tiling(**tiling))
        segmenter = loaded[tuple(tiling.items())]
        (found,) = segmenter.maps_of([decode_image(path.read_bytes(), name=path.name)], diameters_px=[diameter])
        return segmenter.bundle.labels.label(found.maps, scale=found.scale)

    loaded: dict[tuple[tuple[str, int], ...], Segmenter] = {}
    return segment_file


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by the fixtures they use, so that a forgotten marker cannot hide one from ``-m``."""
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if "realdata" in fixtures:
            item.add_marker(pytest.mark.realdata)
        if "ray_session" in fixtures:
            item.add_marker(pytest.mark.ray)
