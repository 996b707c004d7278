"""What a network looks like, in numbers: enough to build it again before its weights are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from nucseg_ray.errors import ModelError

ENCODER = "mobilenet_v2"
# Where the encoder is tapped, at 1/2, 1/4, 1/8, 1/16 and 1/32 of the image's sides.
TAPS = (
    "block_1_expand_relu",
    "block_3_expand_relu",
    "block_6_expand_relu",
    "block_13_expand_relu",
    "block_16_project",
)
STRIDE = 32
# What its input and its output are called, in every form that carries names.
INPUT, OUTPUT = "image", "maps"


@dataclass(frozen=True, slots=True)
class Architecture:
    """The MobileNetV2 U-Net: maps it predicts, and the widths of its decoder from 1/16 up to 1/2 of the sides.

    ``skip_filters`` are the channels that each skip connection is narrowed to before it joins the decoder.
    """

    map_names: tuple[str, ...]
    decoder_filters: tuple[int, int, int, int] = (128, 96, 64, 48)
    skip_filters: tuple[int, int, int, int] = (64, 48, 32, 24)
    encoder: str = ENCODER

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        if self.encoder != ENCODER:
            raise ModelError(f"encoder {self.encoder!r} is unknown to this version; expected {ENCODER!r}")
        if not self.map_names:
            raise ModelError("a network must predict at least one map; found none")
        for name in ("decoder_filters", "skip_filters"):
            widths = getattr(self, name)
            if len(widths) != 4 or min(widths) < 1:
                raise ModelError(f"{name}: expected four widths of at least 1, found {widths}")

    def to_dict(self) -> dict[str, Any]:
        """Give what the bundle stores."""
        return asdict(self)


def architecture_from_dict(stored: Mapping[str, Any]) -> Architecture:
    """Build what ``to_dict`` stored.

    Raises
    ------
    ModelError
        A key is missing or unknown, or the network cannot be built.
    """
    known = {field.name for field in fields(Architecture)}
    if set(stored) != known:
        raise ModelError(f"architecture: expected the keys {sorted(known)}, found {sorted(stored)}")
    return Architecture(
        map_names=tuple(stored["map_names"]),
        decoder_filters=tuple(stored["decoder_filters"]),
        skip_filters=tuple(stored["skip_filters"]),
        encoder=stored["encoder"],
    )
