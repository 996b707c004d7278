"""The import rules of ARCHITECTURE.md, proved on the source and on what really loads."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "nucseg_ray"

# Which rooms a room may import. The files beside the rooms have no entry: config and errors, which every room may
# import, see none of them (ROOMLESS); the rest (the package's own __init__, the command) may import any.
ALLOWED_ROOMS = {
    "imaging": set(),
    "plates": {"imaging"},
    "storage": {"imaging"},
    "model": {"imaging"},
    "report": {"imaging", "storage"},
    "pipelines": {"imaging", "plates", "storage", "model", "report"},
}
ROOMLESS = {"config", "errors"}

# Libraries that belong to one place each.
OWNERS = {
    "ray": {"pipelines", "jobs"},
    "tensorflow": {"model"},
    "tf_keras": {"model"},
    "keras": {"model"},
    "openvino": {"model"},
    "nncf": {"model"},
    "onnx": {"model"},
    "tf2onnx": {"model"},
}
HEAVY = ("ray", "tensorflow", "tf_keras", "keras", "openvino", "nncf", "onnx", "tf2onnx")


def _module_files(root: Path) -> dict[str, Path]:
    files = {}
    for folder in (PACKAGE, "jobs"):
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


def _imported(module: str, path: Path, known: set[str]) -> Iterator[tuple[int, str]]:
    """Yield (line, absolute name) of every import in a file, also those inside functions and TYPE_CHECKING blocks."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), filename=str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield node.lineno, full if full in known or base == PACKAGE else base


def _place(module: str) -> str:
    """Return the room, ``jobs``, or the name of a file beside the rooms."""
    first, *rest = module.split(".")
    return rest[0] if first == PACKAGE and rest else first


def _violations(root: Path) -> list[str]:
    """Say every breach of the rules under ``root`` as ``file:line: what``."""
    files = _module_files(root)
    known = set(files)
    graph: dict[str, set[str]] = {module: set() for module in files}
    found = []
    for module, path in files.items():
        place = _place(module)
        for line, name in _imported(module, path, known):
            where = f"{path.relative_to(root)}:{line}: {place}"
            top, target = name.split(".")[0], _place(name)
            if place not in OWNERS.get(top, {place}):
                found.append(f"{where} imports {top}, which belongs to {' and '.join(sorted(OWNERS[top]))}")
            if top == "jobs" and place != "jobs":
                found.append(f"{where} imports a job")
            if top != PACKAGE:
                continue
            if name in known:
                graph[module].add(name)
            if target not in ALLOWED_ROOMS or target == place:
                continue
            allowed = set() if place in ROOMLESS else ALLOWED_ROOMS.get(place, set(ALLOWED_ROOMS))
            if target not in allowed:
                found.append(f"{where} imports the room {target}")
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found.append("circle: " + " -> ".join(error.args[1]))
    return found


def _loaded_with(modules: list[str]) -> set[str]:
    """Import modules in an interpreter of their own; return the heavy libraries that came along. It must be silent."""
    code = (
        "import importlib, json, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("\n") == 1, f"importing {modules} prints:\n{run.stdout}"
    # Matplotlib says so when it looks through the machine's fonts, once after a fresh install.
    said = [line for line in run.stderr.splitlines() if "font cache" not in line]
    assert said == [], f"importing {modules} says:\n{run.stderr}"
    return set(json.loads(run.stdout))


def test_the_source_keeps_the_rules():
    assert _violations(ROOT) == []


def test_every_folder_of_the_package_is_a_room_with_rules():
    folders = {path.parent.name for path in (ROOT / PACKAGE).glob("*/__init__.py")}
    assert folders == set(ALLOWED_ROOMS)


@pytest.mark.parametrize("room", ["imaging", "plates", "storage", "report"])
def test_a_quick_room_loads_neither_ray_nor_tensorflow(room):
    modules = [module for module in _module_files(ROOT) if _place(module) == room]
    assert _loaded_with(modules) == set()


def test_files_beside_the_rooms_load_neither_ray_nor_tensorflow():
    modules = [m for m in _module_files(ROOT) if m.startswith(PACKAGE) and _place(m) not in ALLOWED_ROOMS]
    assert f"{PACKAGE}.errors" in modules
    assert _loaded_with(modules) == set()


def test_pipelines_load_without_tensorflow():
    modules = [module for module in _module_files(ROOT) if _place(module) == "pipelines"]
    assert _loaded_with(modules) <= {"ray"}


BREACHES = {
    "nucseg_ray/imaging/a.py": ("from nucseg_ray.storage import b", "imaging imports the room storage"),
    "nucseg_ray/plates/a.py": ("def f():\n    from ..storage.b import c", "plates imports the room storage"),
    "nucseg_ray/storage/a.py": ("import nucseg_ray.report", "storage imports the room report"),
    "nucseg_ray/model/a.py": ("from nucseg_ray import plates", "model imports the room plates"),
    "nucseg_ray/report/a.py": ("from nucseg_ray.pipelines.b import c", "report imports the room pipelines"),
    "nucseg_ray/config.py": ("from nucseg_ray.imaging import labels", "config imports the room imaging"),
    "nucseg_ray/errors.py": ("from .plates import keys", "errors imports the room plates"),
    "nucseg_ray/storage/b.py": ("import ray.data", "storage imports ray, which belongs to jobs and pipelines"),
    "nucseg_ray/pipelines/a.py": (
        "from tensorflow.io import gfile",
        "pipelines imports tensorflow, which belongs to model",
    ),
    "nucseg_ray/report/b.py": (
        "def f():\n    import openvino as ov",
        "report imports openvino, which belongs to model",
    ),
    "jobs/train.py": ("import tf_keras", "jobs imports tf_keras, which belongs to model"),
    "nucseg_ray/pipelines/b.py": ("from jobs.train import main", "pipelines imports a job"),
}
PERMITTED = {
    "nucseg_ray/__init__.py": "from nucseg_ray.model.a import Segmenter",
    "nucseg_ray/config.py": "from nucseg_ray.errors import UsageError",
    "nucseg_ray/imaging/a.py": "import cv2\nfrom nucseg_ray import errors\nfrom nucseg_ray.imaging import b",
    "nucseg_ray/imaging/b.py": "import raytracer",
    "nucseg_ray/model/a.py": "import tensorflow as tf\nfrom ..imaging import a",
    "nucseg_ray/report/a.py": "from nucseg_ray.storage.a import read\nfrom nucseg_ray.imaging.a import outline",
    "nucseg_ray/storage/a.py": "from nucseg_ray.config import Settings",
    "nucseg_ray/pipelines/a.py": "import ray\nfrom nucseg_ray.report import a\nfrom nucseg_ray.plates import keys",
    "jobs/train.py": "import ray\nfrom nucseg_ray.pipelines.a import run_train",
}


def _tree(root: Path, sources: dict[str, str]) -> Path:
    for name, source in sources.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source + "\n", encoding="utf-8")
    return root


@pytest.mark.parametrize("name", BREACHES)
def test_the_checker_finds_a_breach(tmp_path, name):
    source, expected = BREACHES[name]
    line = source.count("\n") + 1
    assert _violations(_tree(tmp_path, {name: source})) == [f"{name}:{line}: {expected}"]


def test_the_checker_permits_what_is_permitted(tmp_path):
    assert _violations(_tree(tmp_path, PERMITTED | {"nucseg_ray/errors.py": ""})) == []


def test_the_checker_finds_a_circle(tmp_path):
    sources = {
        "nucseg_ray/storage/a.py": "from nucseg_ray.storage import b",
        "nucseg_ray/storage/b.py": "def f():\n    from nucseg_ray.storage.a import x",
    }
    (found,) = _violations(_tree(tmp_path, sources))
    assert found.startswith("circle: ")
    assert "nucseg_ray.storage.a" in found
    assert "nucseg_ray.storage.b" in found
