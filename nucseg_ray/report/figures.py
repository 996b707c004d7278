"""The look that every figure shares, and its way to PNG bytes.

Figures are made without pyplot: no global state, no window, and safe in any thread.
"""

from __future__ import annotations

import io
from typing import Final

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe & Ito, "Color Universal Design" (2008): told apart by every kind of colour vision. Yellow is left out, it
# vanishes on white.
BLUE: Final = "#0072B2"
ORANGE: Final = "#E69F00"
VERMILION: Final = "#D55E00"
SKY: Final = "#56B4E9"
PALETTE: Final = (BLUE, VERMILION, "#009E73", "#CC79A7", ORANGE, SKY, "#000000")
INK: Final = "#222222"
FAINT: Final = "#777777"

_DPI = 120


def new_figure(*, width_in: float, height_in: float) -> Figure:
    """Return an empty white figure whose parts do not overlap."""
    figure = Figure(figsize=(width_in, height_in), dpi=_DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def dress(axes: Axes, *, title: str, x_label: str, y_label: str) -> None:
    """Name the axes and take away what is not data."""
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK)
    axes.set_xlabel(x_label, color=INK)
    axes.set_ylabel(y_label, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(visible=True, axis="y", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)


def png_bytes(figure: Figure) -> bytes:
    """Encode a figure as PNG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
