"""The programs in docs/python.md run as they stand."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile

from nucseg_ray.imaging.synthetic import SiteLook, render_site
from nucseg_ray.model.bundle import Bundle
from nucseg_ray.model.segmenter import Segmenter

PAGE = Path(__file__).resolve().parents[2] / "docs" / "python.md"
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


class Viewer:
    """What the snippet uses of napari's viewer; napari itself is no dependency."""

    def __init__(self) -> None:
        self.added: dict[str, np.ndarray] = {}
        viewers.append(self)

    def open(self, path: str) -> list[Any]:
        return [SimpleNamespace(data=tifffile.imread(path), name=Path(path).stem)]

    def add_labels(self, data: np.ndarray, *, name: str) -> None:
        assert np.issubdtype(data.dtype, np.integer)  # napari refuses any other
        self.added[name] = data


viewers: list[Viewer] = []


@pytest.fixture
def here(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model, an image and a folder of images, in which the programs run."""
    shutil.copytree(bundle.folder, tmp_path / "model")
    (tmp_path / "images").mkdir()
    for number, name in enumerate(["nuclei.tif", "images/a.tif", "images/b.tif"]):
        look = SiteLook(shape_px=(96 + 16 * number, 128), nuclei=5, radius_px=(7.0, 12.0))
        tifffile.imwrite(tmp_path / name, render_site(look, np.random.default_rng(number))[0])
    monkeypatch.chdir(tmp_path)
    napari = ModuleType("napari")
    napari.__dict__.update(Viewer=Viewer, run=lambda: None)
    monkeypatch.setitem(sys.modules, "napari", napari)
    viewers.clear()
    return tmp_path


def test_every_program_is_one_that_is_tested() -> None:
    assert ["segment(image)" in PROGRAMS[0], "segment_many" in PROGRAMS[1], "napari" in PROGRAMS[2]] == [True] * 3
    assert len(PROGRAMS) == 3


def test_the_notebook(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    variables: dict[str, Any] = {}
    exec(PROGRAMS[0], variables)
    expected = Segmenter.load("model").segment(tifffile.imread("nuclei.tif"))
    np.testing.assert_array_equal(variables["labels"], expected, strict=True)
    assert capsys.readouterr().out == f"(96, 128) int32 {expected.max()} nuclei\n"


def test_many_images(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(PROGRAMS[1], {})
    segmenter = Segmenter.load("model")
    counts = {name: segmenter.segment(tifffile.imread(f"images/{name}")).max() for name in ("a.tif", "b.tif")}
    assert capsys.readouterr().out == "".join(f"{name} {n} nuclei\n" for name, n in counts.items())


def test_napari(here: Path) -> None:
    exec(PROGRAMS[2], {})
    (viewer,) = viewers
    assert list(viewer.added) == ["nuclei of nuclei"]
    expected = Segmenter.load("model").segment(tifffile.imread("nuclei.tif"))
    np.testing.assert_array_equal(viewer.added["nuclei of nuclei"], expected)
