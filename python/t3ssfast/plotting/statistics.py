"""Histograms of window statistics: windows on particles against the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from t3ssfast.detection.preselect import PreselectRule, WindowSample
from t3ssfast.plotting.canvas import panel_grid, save
from t3ssfast.tomogram import StrPath

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_statistics"]

COLUMNS = 4
BINS = 60
# Values beyond these percentiles of all windows would compress the histograms.
SHOWN_PERCENTILES = (0.5, 99.5)


def draw_statistics(path: StrPath, sample: WindowSample, rule: PreselectRule | None = None) -> None:
    """Draw a histogram of each statistic as a PNG, atomically; a rule's bounds are dashed lines."""
    figure, panels = panel_grid(len(sample.names) + 1, COLUMNS, 2.6, 2.1)
    for k, name in enumerate(sample.names):
        axes = panels[k]
        _histograms(axes, sample, k)
        axes.set_title(name, fontsize=10)
        axes.set_yticks([])
        axes.tick_params(labelsize=8)
        axes.spines[["top", "left", "right"]].set_visible(False)
        if rule is not None and name in rule.statistics:
            index = rule.statistics.index(name)
            for bound in (rule.low[index], rule.high[index]):
                axes.axvline(bound, color="0.35", linestyle="--", linewidth=1)
    legend = panels[len(sample.names)]
    legend.set_axis_off()
    handles, labels = panels[0].get_legend_handles_labels()
    legend.legend(handles, labels, loc="center left", frameon=False, fontsize=9)
    figure.supxlabel("statistic of a window, normalised grey values", fontsize=9)
    save(figure, path)


def _histograms(axes: Axes, sample: WindowSample, index: int) -> None:
    """Draw the densities of one statistic over the range that nearly all windows share."""
    on_particles, others = (
        values[index][np.isfinite(values[index])] for values in (sample.on_particles, sample.others)
    )
    low, high = np.percentile(np.concatenate([on_particles, others]), SHOWN_PERCENTILES)
    # Bounds of a statistic that is the same everywhere still need a width.
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1).tolist()
    size = f"{sample.size} x {sample.size} px"
    axes.hist(others, edges, density=True, color="0.75", label=f"other windows near\nthe membrane, {size}")
    axes.hist(
        on_particles, edges, density=True, histtype="step", color="tab:red", linewidth=1.6, label="on T3SS"
    )
