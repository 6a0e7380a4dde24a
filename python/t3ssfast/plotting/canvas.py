"""Figures, scale bars and outlines shared by all plots."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from t3ssfast.io import atomic_path
from t3ssfast.runtime import figures
from t3ssfast.tomogram import StrPath

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["grey_limits", "new_figure", "outline", "panel_grid", "save", "scale_bar"]

DPI = 160
# Largest distance of black and white from the median, in standard deviations of the grey values between the
# quartiles: one gold bead would otherwise leave little contrast to the particle beside it.
MAX_CONTRAST_SIGMAS = 5.0


def new_figure(width: float, height: float) -> Figure:
    """Create a figure in inches."""
    return figures.new_figure(width, height, DPI)


def panel_grid(count: int, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """Create a figure with a grid of panels of the given size in inches; panels beyond `count` stay empty."""
    rows = max(1, math.ceil(count / columns))
    figure = new_figure(columns * width, rows * height + 0.6)
    panels: list[Axes] = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for axes in panels[count:]:
        axes.set_axis_off()
    return figure, panels


def save(figure: Figure, path: StrPath) -> None:
    """Write a figure as a PNG, atomically."""
    with atomic_path(path) as temporary, warnings.catch_warnings():
        # Letters of tomogram names that the font lacks are drawn as boxes.
        warnings.filterwarnings("ignore", message=".*[Gg]lyph.*missing from")
        figure.savefig(temporary, format="png", metadata={"Software": "t3ssfast"})


def grey_limits(values: npt.NDArray[Any], clipped_percent: float = 0.5) -> tuple[float, float]:
    """Return the grey values to draw black and white.

    They are the percentiles that clip a share of the darkest and of the brightest pixels, but not far from
    the grey values between the quartiles.
    """
    percentiles = [clipped_percent, 25, 50, 75, 100 - clipped_percent]
    low, lower, median, upper, high = map(float, np.percentile(values, percentiles))
    reach = MAX_CONTRAST_SIGMAS * (upper - lower) / 1.349
    return (max(low, median - reach), min(high, median + reach)) if reach > 0 else (low, high)


def outline(*artists: Artist) -> None:
    """Give artists a dark outline, which keeps thin bright lines visible on a grey image."""
    from matplotlib.patheffects import withStroke

    for artist in artists:
        artist.set_path_effects([withStroke(linewidth=2.2, foreground="black", alpha=0.55)])


def scale_bar(axes: Axes, width: int, nm_per_voxel: float) -> None:
    """Draw a scale bar of a round length, at most 22% of the image width."""
    longest = 0.22 * width * nm_per_voxel
    power = 10 ** math.floor(math.log10(longest))
    length = max(step * power for step in (1, 2, 5) if step * power <= longest)
    bottom, top = axes.get_ylim()
    x, y = 0.05 * width, bottom + 0.06 * (top - bottom)
    middle, above = x + length / nm_per_voxel / 2, y + 0.02 * (top - bottom)
    (bar,) = axes.plot([x, x + length / nm_per_voxel], [y, y], color="white", lw=2.5, solid_capstyle="butt")
    label = axes.text(middle, above, f"{length:g} nm", color="white", fontsize=6.5, ha="center", va="bottom")
    outline(bar, label)
