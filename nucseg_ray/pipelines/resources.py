"""Whether a cluster has room for what a run asks for: where it has not, Ray would wait for ever without a word."""

from __future__ import annotations

import ray

from nucseg_ray.errors import UsageError


def check_room(*, process: str, count: int, cpus_each: float, use_gpu: bool) -> None:
    """Check that so many workers or actors (``process`` names them, as in the flags) leave a CPU for other tasks.

    Raises
    ------
    UsageError
        The cluster lacks the CPUs or GPUs; names the flags to change.
    """
    resources = ray.cluster_resources()
    cpus, gpus = resources.get("CPU", 0), resources.get("GPU", 0)
    wanted = count * cpus_each
    if wanted > cpus - 1:
        raise UsageError(
            f"--{process}s {count} with --cpus-per-{process} {cpus_each:g} take {wanted:g} of the cluster's {cpus:g} "
            f"CPUs and leave less than one for the tasks that read images, so the run would hang; lower "
            f"--cpus-per-{process} (it reserves, it does not limit: see --threads-per-{process})"
        )
    if use_gpu and count > gpus:
        raise UsageError(f"--use-gpu with --{process}s {count}: the cluster has {gpus:g} GPUs; lower --{process}s")
