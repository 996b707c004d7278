"""The model that comes with the package, and the word that names it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from nucseg_ray.config_predict import PredictSettings
from nucseg_ray.errors import MissingInputError
from nucseg_ray.imaging.metrics import match, pool
from nucseg_ray.imaging.normalise import FullRange
from nucseg_ray.imaging.synthetic import SiteLook, render_site
from nucseg_ray.model import pretrained
from nucseg_ray.model.bundle import FORMS, Bundle, read_arrays, read_bundle, write_bundle
from nucseg_ray.model.pretrained import PRETRAINED, pretrained_folder
from nucseg_ray.model.segmenter import Segmenter

MOST_BYTES, MOST_PARAMETERS = 16_000_000, 5_000_000


def test_the_word_names_the_model_of_the_package_and_a_path_the_folder(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "FOLDER", bundle.folder)
    monkeypatch.chdir(tmp_path)
    own = write_bundle(
        tmp_path / PRETRAINED,
        bundle.weights(),
        architecture=bundle.architecture,
        normalisation=FullRange(),
        diameter_px=bundle.diameter_px,
        labels=bundle.labels,
        training={},
    )
    assert own.fingerprint != bundle.fingerprint
    named = (Segmenter.load(), Segmenter.load("pretrained"))
    assert [segmenter.bundle for segmenter in named] == [bundle, bundle]
    for folder in ("./pretrained", Path("pretrained")):
        assert Segmenter.load(folder).bundle.fingerprint == own.fingerprint


def test_predicting_without_a_model_takes_the_one_of_the_package() -> None:
    assert PredictSettings(input="i", output="o").model == PRETRAINED


def test_a_package_without_a_model_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / PRETRAINED)
    with pytest.raises(MissingInputError, match=r"no pretrained/model\.json in this copy.*name the folder of a model"):
        Segmenter.load()


def test_a_model_that_is_incomplete_is_not_taken_for_none(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    shutil.copy(bundle.folder / "model.json", tmp_path)
    with pytest.raises(MissingInputError, match=r"weights\.npz: missing from the bundle"):
        Segmenter.load()


def test_the_shipped_model_is_small_and_whole() -> None:
    shipped = read_bundle(pretrained_folder())
    assert sum(path.stat().st_size for path in shipped.folder.rglob("*")) <= MOST_BYTES
    assert sum(array.size for array in shipped.weights().values()) <= MOST_PARAMETERS
    assert shipped.forms == tuple(FORMS) and shipped.default_form in FORMS
    assert {array.dtype for array in read_arrays(shipped.folder / "weights.npz").values()} == {np.dtype(np.float16)}
    assert (shipped.folder / "MODEL_CARD.md").is_file()


@pytest.mark.parametrize("radius_px", [(4.0, 6.0), (9.0, 14.0), (30.0, 45.0)])
def test_the_shipped_model_finds_nuclei_of_any_size(radius_px: tuple[float, float]) -> None:
    side = round(22 * radius_px[1])
    look = SiteLook(shape_px=(side, side), nuclei=20, radius_px=radius_px)
    image, truth = render_site(look, np.random.default_rng(4))
    segmenter = Segmenter.load()
    matches = pool([match(truth, segmenter.segment(image))])
    assert matches.f1[0] >= 0.9 and matches.n_truth >= 15
    assert segmenter.estimate_diameter(image) == pytest.approx(sum(radius_px), rel=0.25)
