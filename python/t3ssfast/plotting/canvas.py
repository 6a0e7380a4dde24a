"""What all pictures share: a figure without a display, bars of a round length, thin lines that stand out."""

from __future__ import annotations

import math
import os
import warnings
from typing import TYPE_CHECKING, Any

from t3ssfast.io import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["halo", "new_figure", "save", "scale_bar"]

DPI = 160


def new_figure(width: float, height: float) -> Figure:
    """A figure of its own, without pyplot: nothing global is touched and no display is needed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    with atomic_path(path) as temporary, warnings.catch_warnings():
        # A name in letters that the font lacks has boxes in their place; the tables have it whole.
        warnings.filterwarnings("ignore", message=".*[Gg]lyph.*missing from")
        figure.savefig(temporary, format="png", metadata={"Software": "t3ssfast"})


def halo() -> list[Any]:
    """A dark rim, so that thin bright lines stand out from a grey picture."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=2.2, foreground="black", alpha=0.55)]


def scale_bar(axes: Axes, width: int, nm_per_voxel: float) -> None:
    """A bar of a round length, about a fifth of the picture."""
    wanted = 0.22 * width * nm_per_voxel
    power = 10 ** math.floor(math.log10(wanted))
    length = max(step * power for step in (1, 2, 5) if step * power <= wanted)
    bottom, top = axes.get_ylim()
    y = bottom + 0.06 * (top - bottom)
    x = 0.05 * width
    axes.plot([x, x + length / nm_per_voxel], [y, y], color="white", lw=2.5, solid_capstyle="butt").pop(
        0
    ).set_path_effects(halo())
    text = axes.text(
        x + length / nm_per_voxel / 2,
        y + 0.02 * (top - bottom),
        f"{length:g} nm",
        color="white",
        fontsize=6.5,
        ha="center",
        va="bottom",
    )
    text.set_path_effects(halo())
