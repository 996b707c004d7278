"""Fixtures that every room's tests share.

Importing this file loads neither Ray nor TensorFlow: the quick rooms' tests must stay quick.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

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


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """Run one small local Ray for all tests that need it."""
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by the fixtures they use, so that a forgotten marker cannot hide one from ``-m``."""
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if "realdata" in fixtures:
            item.add_marker(pytest.mark.realdata)
        if "ray_session" in fixtures:
            item.add_marker(pytest.mark.ray)
