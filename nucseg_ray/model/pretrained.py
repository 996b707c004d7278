"""The model that comes with the package: where it lies, and the word that names it."""

from __future__ import annotations

from pathlib import Path

from nucseg_ray.errors import MissingInputError
from nucseg_ray.model.bundle import MODEL_JSON

# What names it wherever a model is named; a folder that is called so is given as ./pretrained.
PRETRAINED = "pretrained"
FOLDER = Path(__file__).resolve().parents[1] / PRETRAINED


def pretrained_folder() -> Path:
    """Give the folder of the bundle that comes with this package.

    Raises
    ------
    MissingInputError
        This copy of the package holds none.
    """
    if not (FOLDER / MODEL_JSON).is_file():
        raise MissingInputError(
            f"model {PRETRAINED}: expected the one that comes with nucseg_ray, found no {FOLDER.name}/{MODEL_JSON} in "
            "this copy of the package; name the folder of a model that you trained, or install the package whole"
        )
    return FOLDER
