"""Loads the benchmarks' scripts by their path: they are no package, and run from anywhere."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="session")
def script() -> Callable[[str], ModuleType]:
    """Load a script by its path below ``benchmarks``, without running it."""

    def load(path: str) -> ModuleType:
        name = f"benchmarks_{Path(path).stem}"
        if name not in sys.modules:
            spec = importlib.util.spec_from_file_location(name, BENCHMARKS / path)
            assert spec is not None and spec.loader is not None
            if str(BENCHMARKS) not in sys.path:  # where a script finds its neighbours when it is run
                sys.path.append(str(BENCHMARKS))
            sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
            spec.loader.exec_module(sys.modules[name])
        return sys.modules[name]

    return load
