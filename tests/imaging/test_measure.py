"""Measurements against numbers worked out by hand and against scikit-image."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.measure import regionprops_table

from nucseg_ray.errors import InputError
from nucseg_ray.imaging.measure import measure

DTYPES = {
    "ObjectNumber": np.int32,
    "Nuclei_Location_Center_X": np.float64,
    "Nuclei_Location_Center_Y": np.float64,
    "Nuclei_AreaShape_BoundingBoxMinimum_X": np.int32,
    "Nuclei_AreaShape_BoundingBoxMinimum_Y": np.int32,
    "Nuclei_AreaShape_BoundingBoxMaximum_X": np.int32,
    "Nuclei_AreaShape_BoundingBoxMaximum_Y": np.int32,
    "Nuclei_AreaShape_Area": np.int64,
    "Nuclei_Intensity_MeanIntensity": np.float64,
}


def assert_equals_scikit_image(labels: np.ndarray, image: np.ndarray) -> None:
    found = measure(labels, image)
    assert {name: column.dtype for name, column in found.items()} == DTYPES
    grey = image if image.ndim == 2 else image.mean(axis=2)
    expected = regionprops_table(
        labels, intensity_image=grey, properties=("label", "centroid", "bbox", "area", "intensity_mean")
    )
    for name, key in {
        "ObjectNumber": "label",
        "Nuclei_Location_Center_X": "centroid-1",
        "Nuclei_Location_Center_Y": "centroid-0",
        "Nuclei_AreaShape_BoundingBoxMinimum_X": "bbox-1",
        "Nuclei_AreaShape_BoundingBoxMinimum_Y": "bbox-0",
        "Nuclei_AreaShape_BoundingBoxMaximum_X": "bbox-3",
        "Nuclei_AreaShape_BoundingBoxMaximum_Y": "bbox-2",
        "Nuclei_AreaShape_Area": "area",
        "Nuclei_Intensity_MeanIntensity": "intensity_mean",
    }.items():
        np.testing.assert_allclose(found[name], expected[key], rtol=1e-12, err_msg=name)


def test_numbers_worked_out_by_hand() -> None:
    labels = np.array([[0, 2, 2, 0], [1, 0, 2, 0], [1, 0, 0, 0]], np.int32)
    image = np.array([[9, 10, 20, 9], [65535, 9, 60, 9], [65533, 9, 9, 9]], np.uint16)
    found = {name: column.tolist() for name, column in measure(labels, image).items()}
    assert found == {
        "ObjectNumber": [1, 2],
        "Nuclei_Location_Center_X": [0.0, 5 / 3],
        "Nuclei_Location_Center_Y": [1.5, 1 / 3],
        "Nuclei_AreaShape_BoundingBoxMinimum_X": [0, 1],
        "Nuclei_AreaShape_BoundingBoxMinimum_Y": [1, 0],
        "Nuclei_AreaShape_BoundingBoxMaximum_X": [1, 3],
        "Nuclei_AreaShape_BoundingBoxMaximum_Y": [3, 2],
        "Nuclei_AreaShape_Area": [2, 3],
        "Nuclei_Intensity_MeanIntensity": [65534.0, 30.0],
    }


@settings(max_examples=80, deadline=None)
@given(
    hnp.arrays(np.int32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from([0, 1, 2, 5])),
    st.sampled_from([np.uint8, np.uint16]),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_equals_scikit_image(labels: np.ndarray, dtype: type, colour: bool, seed: int) -> None:
    if not labels.any():
        labels[0, 0] = 1
    shape = (*labels.shape, 3) if colour else labels.shape
    image = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    assert_equals_scikit_image(labels, image)


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 3)])
def test_no_nuclei_give_empty_columns_of_the_same_types(shape: tuple[int, ...]) -> None:
    found = measure(np.zeros((4, 6), np.int32), np.zeros(shape, np.uint8))
    assert {name: column.dtype for name, column in found.items()} == DTYPES
    assert all(column.shape == (0,) for column in found.values())


@pytest.mark.parametrize("shape", [(6, 4), (4, 6, 3, 2), (4,)])
def test_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="must have one height and width"):
        measure(np.zeros((4, 6), np.int32), np.zeros(shape, np.uint8))


def test_equals_scikit_image_on_the_bowl(realdata: Path) -> None:
    for folder in sorted((realdata / "dsb2018" / "stage1_train").iterdir())[::220]:
        image = cv2.imread(str(next((folder / "images").glob("*.png"))), cv2.IMREAD_COLOR)
        labels = np.zeros(image.shape[:2], np.int32)
        for number, path in enumerate(sorted((folder / "masks").glob("*.png")), start=1):
            labels[cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 0] = number
        assert_equals_scikit_image(labels, image)
