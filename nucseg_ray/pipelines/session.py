"""Connecting to Ray, and what holds for all datasets of this package."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
import ray.data
from ray.util.annotations import RayDeprecationWarning

from nucseg_ray.pipelines.native_stderr import native_stderr_silenced

_TALKATIVE = ("ray", "ray.data", "ray.train", "tifffile")
# A worker that dies takes no site with it: its task is begun again. But not for ever, as is Ray's default.
MOST_RETRIES = 3


@contextmanager
def connected() -> Iterator[None]:
    """Join the cluster that ``RAY_ADDRESS`` names or ``ray start`` left running here, or start a local Ray.

    ``ray job submit`` sets ``RAY_ADDRESS``. A Ray of its own ends with the command, one that was joined stays. Ray's
    own lines are kept to errors: a run says itself how far it is.
    """
    # A Ray of this command's own ends with it: a dashboard would take two seconds to start, for nobody.
    # (With an address to join, Ray ignores the flag.)
    with native_stderr_silenced():
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        yield
    finally:
        # At the interpreter's exit Ray would do it by itself, half a second slower.
        ray.shutdown()


@contextmanager
def finite_retries(*, actors: bool = False) -> Iterator[dict[str, Any]]:
    """Give the arguments of ``map_batches`` that keep a task (or actor) from being begun again without end.

    Ray 2.60 deprecates this way to pass them and has no other yet.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated", RayDeprecationWarning)
        if actors:
            yield {"max_restarts": MOST_RETRIES, "max_task_retries": MOST_RETRIES}
        else:
            yield {"max_retries": MOST_RETRIES}
