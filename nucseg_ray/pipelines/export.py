"""The network of a bundle, written for other software."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from nucseg_ray.config import ExportSettings
from nucseg_ray.errors import OutputError
from nucseg_ray.model.handover import ONNX, PREPROCESSING, SAVED_MODEL, export_network
from nucseg_ray.pipelines.models import local_bundle
from nucseg_ray.pipelines.native_stderr import native_stderr_silenced
from nucseg_ray.storage.atomic import write_bytes
from nucseg_ray.storage.listing import find_files
from nucseg_ray.storage.locations import Location

NETWORKS: Mapping[str, tuple[str, ...]] = {
    "savedmodel": (SAVED_MODEL,),
    "onnx": (ONNX,),
    "both": (SAVED_MODEL, ONNX),
}


def run_export(settings: ExportSettings) -> str:
    """Write the network of a bundle in other formats, and say what was written. Ray is not needed.

    Raises
    ------
    NucsegError
        There is no model, the output holds something, or a package that the format needs is not installed.
    """
    out = Location(settings.output)
    held = find_files(out)
    if held:
        raise OutputError(
            f"--output {out}: expected a folder that is new or empty, found {held[0][0]} in it; name another --output, "
            "or move that one away"
        )
    bundle = local_bundle(settings.model)
    networks = NETWORKS[settings.to]
    with tempfile.TemporaryDirectory() as folder:
        with native_stderr_silenced():
            export_network(bundle, Path(folder), networks=networks)
        files = [path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()]
        # What describes the others comes last: a folder that has it is whole.
        for name in sorted(files, key=lambda name: (name == PREPROCESSING, name)):
            write_bytes(out / name, (Path(folder) / name).read_bytes(), durable=True)
    return f"{' and '.join(networks)} of model {bundle.fingerprint} are in {out}; README.txt says how to use them"
