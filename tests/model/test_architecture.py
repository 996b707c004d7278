"""The numbers that a network is built from."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nucseg_ray.errors import ModelError
from nucseg_ray.model.architecture import Architecture, architecture_from_dict


@pytest.mark.parametrize(
    "architecture",
    [
        Architecture(("nucleus",)),
        Architecture(("nucleus", "centre_dy", "centre_dx"), decoder_filters=(8, 7, 6, 5), skip_filters=(4, 3, 2, 1)),
    ],
)
def test_it_survives_json(architecture: Architecture) -> None:
    assert architecture_from_dict(json.loads(json.dumps(architecture.to_dict()))) == architecture


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"map_names": ()}, "at least one map"),
        ({"encoder": "resnet"}, "'resnet' is unknown.*'mobilenet_v2'"),
        ({"decoder_filters": (8, 8, 8)}, r"decoder_filters: expected four widths.*\(8, 8, 8\)"),
        ({"skip_filters": (4, 4, 0, 4)}, r"skip_filters: .*\(4, 4, 0, 4\)"),
    ],
)
def test_what_cannot_be_built_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Architecture(**{"map_names": ("nucleus",), **changes})
    with pytest.raises(ModelError, match=message):
        architecture_from_dict({**Architecture(("nucleus",)).to_dict(), **changes})


def test_keys_must_be_the_known_ones() -> None:
    stored = Architecture(("nucleus",)).to_dict()
    with pytest.raises(ModelError, match="found .*'depth'"):
        architecture_from_dict({**stored, "depth": 4})
    del stored["encoder"]
    with pytest.raises(ModelError, match="expected the keys .*'encoder'"):
        architecture_from_dict(stored)
