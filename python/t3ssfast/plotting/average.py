"""Plot of an average: sections, Fourier shell correlation, orientations and scores of the particles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from t3ssfast.plotting.canvas import new_figure, save, scale_bar
from t3ssfast.runtime.counted import counted
from t3ssfast.tomogram import StrPath

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

    from t3ssfast.averaging.result import Average

__all__ = ["draw_average"]

KEPT_COLOUR, REJECTED_COLOUR = "#1769aa", "#e4572e"
# Heights of the x-y sections as fractions of the box: sorting platform, base and needle.
HEIGHTS = (-0.3, 0.0, 0.2)
RINGS_DEGREES = (30, 60, 90, 120, 150)


def draw_average(path: StrPath, average: Average) -> None:
    """Draw sections of an average (protein dark), its Fourier shell correlation, axes and scores as a PNG."""
    figure = new_figure(11.0, 5.9)
    subfigures: Any = figure.subfigures(2, 1, height_ratios=[1.0, 1.25])
    upper, lower = subfigures
    _draw_sections(upper, average)
    fsc, orientations, scores = lower.subplots(1, 3, width_ratios=[1.25, 1.0, 1.1])
    _draw_fsc(fsc, average)
    _draw_orientations(orientations, average)
    _draw_scores(scores, average)
    summary = average.summary()
    resolution = summary["resolution_angstrom"]
    claim = "no resolution can be claimed" if resolution is None else f"{resolution:.1f} Å at 0.143"
    title = f"{summary['kept']} of {counted(summary['particles'], 'particle')}, {average.symmetry}: {claim}"
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    save(figure, path)


def _draw_sections(panel: SubFigure, average: Average) -> None:
    volume = average.map
    size = volume.shape[0]
    middle = size // 2
    nm = average.voxel_size_angstrom / 10
    inside = volume[average.mask > 0.5]
    low, high = np.percentile(inside if inside.size else volume, [0.5, 99.8])
    images = [("x-z", volume[:, middle]), ("y-z", volume[:, :, middle])]
    for fraction in HEIGHTS:
        z = int(np.clip(middle + round(fraction * size), 0, size - 1))
        section = volume[max(0, z - 1) : z + 2].mean(axis=0)
        images.append((f"x-y at {(z - middle) * nm:.0f} nm", section))
    panels = panel.subplots(1, len(images))
    for axes, (title, image) in zip(panels, images, strict=True):
        axes.imshow(-image, cmap="gray", vmin=-high, vmax=-low, origin="lower", interpolation="bicubic")
        axes.set(xticks=[], yticks=[], xlim=(-0.5, size - 0.5), ylim=(-0.5, size - 0.5))
        axes.set_title(title, fontsize=9, loc="left", pad=3)
    scale_bar(panels[0], size, nm)


def _draw_fsc(axes: Axes, average: Average) -> None:
    fsc = average.fsc
    frequency = fsc.frequency_per_angstrom
    axes.axhline(0.143, color="0.6", lw=0.8, ls="--")
    axes.axhline(0.5, color="0.6", lw=0.8, ls=":")
    axes.axvspan(0, 1 / fsc.shared_angstrom, color="0.93", lw=0)
    axes.plot(frequency, fsc.masked, color="0.55", lw=1.0, label="masked")
    axes.plot(frequency, fsc.correlation, color=KEPT_COLOUR, lw=1.8, label="corrected for the mask")
    for value, name in ((fsc.resolution_angstrom, "0.143"), (fsc.half_angstrom, "0.5")):
        if np.isfinite(value):
            axes.plot([1 / value], [float(name)], "o", color=KEPT_COLOUR, ms=4)
            point = (1 / value, float(name))
            axes.annotate(f"{value:.1f} Å", point, (5, 4), textcoords="offset points", fontsize=8)
    ticks = np.linspace(0, frequency[-1], 5)[1:]
    axes.set_xticks(ticks, [f"1/{1 / tick:.0f}" for tick in ticks])
    axes.set(xlim=(0, frequency[-1]), ylim=(-0.1, 1.04))
    axes.set_xlabel("spatial frequency (1/Å)", fontsize=8)
    axes.set_title("Agreement of the half maps", fontsize=9, loc="left", pad=3)
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=7.5, frameon=False, loc="lower left")


def _draw_orientations(axes: Axes, average: Average) -> None:
    from matplotlib.patches import Circle

    for angle in RINGS_DEGREES:
        radius = np.sin(np.radians(angle / 2))
        axes.add_patch(Circle((0, 0), radius, fill=False, color="0.85", lw=0.8))
        axes.text(0, radius, f"{angle}°", fontsize=6.5, color="0.5", ha="center", va="center")
    axes.add_patch(Circle((0, 0), 1.0, fill=False, color="0.6", lw=0.8))
    for kept, colour, label in ((False, REJECTED_COLOUR, "rejected"), (True, KEPT_COLOUR, "kept")):
        normal = np.concatenate(
            [one.normal_zyx[k == kept] for one, k in zip(average.candidates, average.kept, strict=True)]
        )
        if len(normal):
            xy = _equal_area_projection(normal)
            axes.scatter(xy[:, 0], xy[:, 1], s=9, color=colour, alpha=0.75, lw=0, label=label)
    axes.set(xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), aspect="equal")
    axes.set_axis_off()
    axes.set_title("Axes, as seen along the beam", fontsize=9, loc="left", pad=3)


def _equal_area_projection(normal_zyx: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Project unit vectors to (n, 2) x, y by Lambert's projection: +z at the origin, -z on the rim."""
    z, y, x = normal_zyx.T.astype(np.float64)
    radius = np.sqrt(np.clip((1 - z) / 2, 0, 1))
    direction = np.stack([x, y], axis=1) / np.maximum(np.hypot(x, y), 1e-9)[:, None]
    return np.asarray(direction * radius[:, None])


def _draw_scores(axes: Axes, average: Average) -> None:
    from matplotlib.ticker import MaxNLocator

    score = np.concatenate([one.score for one in average.candidates])
    kept = np.concatenate(average.kept)
    groups = [score[kept], score[~kept]]
    edges = np.linspace(score.min(), max(score.max(), score.min() + 1e-3), 31).tolist()
    labels = [f"kept ({len(groups[0])})", f"rejected ({len(groups[1])})"]
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.hist(groups, bins=edges, stacked=True, color=[KEPT_COLOUR, REJECTED_COLOUR], label=labels)
    axes.set_xlabel("correlation with the average of its half", fontsize=8)
    axes.set_ylabel("particles", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("Scores", fontsize=9, loc="left", pad=3)
    axes.legend(fontsize=7.5, frameon=False)
