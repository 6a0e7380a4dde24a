"""Plots of candidates: on slices of the tomogram, and as a gallery of their windows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from t3ssfast.candidates import FLAGELLAR_MOTOR, T3SS, Candidates
from t3ssfast.evaluation.evaluate import evaluate
from t3ssfast.io import display_path
from t3ssfast.plotting.canvas import grey_limits, outline, panel_grid, save, scale_bar
from t3ssfast.runtime.counted import counted
from t3ssfast.tomogram import StrPath, Tomogram

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["SLICE_THICKNESS_NM", "choose_slices", "draw_candidates", "draw_gallery"]

# Encloses a T3SS base, which is about 26 nm wide and 32 nm tall.
MARK_RADIUS_NM = 20.0
# Largest distance in z between a mark and the slice that it is drawn on.
MAX_SLICE_DISTANCE_NM = 11.0
# Thickness over which slices are averaged to reduce noise.
SLICE_THICKNESS_NM = 7.0
MAX_PANELS = 9
MAX_GALLERY = 60
GALLERY_WINDOW_NM = 68.0
GALLERY_COLUMNS = 8
# The title needs this width.
MIN_GALLERY_COLUMNS = 4
PANEL_INCHES = 3.6
# Colour, line style and legend label of each outcome.
STYLES = {
    "candidate": ("#ffb000", "-", "candidate"),
    FLAGELLAR_MOTOR: ("#40a0ff", "-", "flagellar motor"),
    "other kind": ("#d070ff", "-", "another kind"),
    "true": ("#3ddc84", "-", "found (TP)"),
    "false": ("#ff5252", "-", "false (FP)"),
    "missed": ("#ffe34d", (0, (3, 2)), "missed (FN)"),
}
MEMBRANE_COLOUR = "#4fc3f7"

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Mark:
    """A position to mark, in voxels, with its normal, score label and outcome (a key of STYLES)."""

    zyx: FloatArray
    normal_zyx: FloatArray
    label: str
    outcome: str


def draw_candidates(
    path: StrPath,
    tomogram: Tomogram,
    candidates: Candidates,
    *,
    membrane: npt.NDArray[Any] | None = None,
    truth: Candidates | None = None,
    contrast_sign: int = 1,
) -> None:
    """Draw candidates and the outline of the membrane on the slices that show most of them, as a PNG.

    With truth, candidates are coloured as true or false, and missed particles are marked. A contrast sign
    of -1 inverts the grey values of a tomogram with bright protein.
    """
    marks = _marks(candidates, truth)
    nm = tomogram.voxel_size_angstrom / 10
    reach = MAX_SLICE_DISTANCE_NM / nm
    depth, height, width = tomogram.shape
    slices = choose_slices([float(mark.zyx[0]) for mark in marks], reach, depth)
    columns = min(len(slices), max(1, round(math.sqrt(len(slices) * height / width))))
    panel_height = PANEL_INCHES * height / width + 0.12
    figure, panels = panel_grid(len(slices), columns, PANEL_INCHES, panel_height)
    for axes, z in zip(panels, slices, strict=False):
        _draw_slice(axes, tomogram, z, membrane, contrast_sign)
        for mark in marks:
            if abs(mark.zyx[0] - z) <= reach:
                _draw_mark(axes, mark, MARK_RADIUS_NM / nm)
        axes.set_title(f"z = {z}  ({z * nm:.0f} nm)", fontsize=8, loc="left", pad=3)
        # Marks at the border must not enlarge the axes.
        axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
        scale_bar(axes, width, nm)
    _legend(figure, marks, membrane is not None)
    figure.suptitle(_title(tomogram, marks, truth), fontsize=10, x=0.01, ha="left")
    save(figure, path)


def draw_gallery(
    path: StrPath,
    tomogram: Tomogram,
    candidates: Candidates,
    *,
    truth: Candidates | None = None,
    contrast_sign: int = 1,
) -> None:
    """Draw the window around each candidate, highest score first and missed particles last, as a PNG."""
    marks = _marks(candidates, truth)[:MAX_GALLERY]
    nm = tomogram.voxel_size_angstrom / 10
    size = max(8, round(GALLERY_WINDOW_NM / nm))
    columns = min(GALLERY_COLUMNS, max(MIN_GALLERY_COLUMNS, len(marks)))
    figure, panels = panel_grid(len(marks), columns, 1.2, 1.33)
    for axes, mark in zip(panels, marks, strict=False):
        _show(axes, contrast_sign * _window(tomogram, mark.zyx, size), interpolation="bicubic")
        colour, line, _ = STYLES[mark.outcome]
        for spine in axes.spines.values():
            spine.set(edgecolor=colour, linewidth=2.0, linestyle=line)
        axes.set_title(mark.label or "missed", fontsize=7, color="0.1", pad=3)
        # The projection of the normal, shorter the closer it is to z.
        middle = (size - 1) / 2
        y, x = ([middle + 0.9 * d, middle + 1.9 * d] for d in mark.normal_zyx[1:] * size * 0.22)
        axes.plot(x, y, color=colour)
        axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5))
    if marks:
        scale_bar(panels[0], size, nm)
    _legend(figure, marks, False)
    title = f"{size} x {size} voxel windows ({size * nm:.0f} nm), score above"
    figure.suptitle(title, fontsize=9, x=0.01, ha="left")
    save(figure, path)


def _marks(candidates: Candidates, truth: Candidates | None) -> list[_Mark]:
    """Return marks for the candidates by score, followed by the missed particles."""
    matched: dict[int, int] = {}
    if truth is not None:
        matched = {pair.candidate: pair.truth for pair in evaluate(candidates, truth).pairs}
    marks = []
    for i in np.argsort(-candidates.score, kind="stable").tolist():
        outcome = "true" if i in matched else "false"
        if truth is None:
            kind = str(candidates.kind[i])
            outcome = "candidate" if kind == T3SS else kind if kind in STYLES else "other kind"
        label = f"{candidates.score[i]:.2f}"
        marks.append(_Mark(candidates.centre_zyx[i], candidates.normal_zyx[i], label, outcome))
    if truth is not None:
        scale = truth.voxel_size_angstrom / candidates.voxel_size_angstrom
        for i in sorted(set(range(len(truth))) - set(matched.values())):
            marks.append(_Mark(truth.centre_zyx[i] * scale, truth.normal_zyx[i], "", "missed"))
    return marks


def choose_slices(depths: Sequence[float], reach: float, count: int) -> list[int]:
    """Choose greedily the slices within reach of most marks; three evenly spaced ones without marks."""
    remaining = np.sort(np.asarray(depths))
    if not len(remaining):
        return sorted({int(count * part) for part in (0.25, 0.5, 0.75)})
    chosen: list[int] = []
    while len(remaining) and len(chosen) < MAX_PANELS:
        options = np.clip(np.round(remaining + reach / 2), 0, count - 1)
        within_reach = np.abs(options[:, None] - remaining) <= reach
        best = options[within_reach.sum(axis=1).argmax()]
        # Move to the middle of the marks that this slice shows.
        shown = remaining[np.abs(remaining - best) <= reach]
        chosen.append(int(np.clip(round((shown.min() + shown.max()) / 2), 0, count - 1)))
        remaining = remaining[np.abs(remaining - chosen[-1]) > reach]
    return sorted(chosen)


def _mean_slice(tomogram: Tomogram, z: int) -> FloatArray:
    """Average slice z over SLICE_THICKNESS_NM."""
    half = int(SLICE_THICKNESS_NM / 2 / (tomogram.voxel_size_angstrom / 10))
    slab = tomogram.data[max(0, z - half) : z + half + 1]
    mean: FloatArray = np.asarray(slab, dtype=np.float32).mean(axis=0)
    return mean


def _window(tomogram: Tomogram, zyx: FloatArray, size: int) -> FloatArray:
    """Cut out the window centred at a position, with the mean grey value outside of the tomogram."""
    z, y, x = np.round(zyx).astype(int).tolist()
    image = _mean_slice(tomogram, min(max(z, 0), tomogram.shape[0] - 1))
    # A mirrored border looks like a particle that is not there.
    padded = np.pad(image, size, constant_values=image.mean())
    top, left = y + size - size // 2, x + size - size // 2
    return padded[top : top + size, left : left + size]


def _show(axes: Axes, image: FloatArray, interpolation: str) -> None:
    low, high = grey_limits(image)
    axes.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation=interpolation)
    axes.set(xticks=[], yticks=[])


def _draw_slice(
    axes: Axes, tomogram: Tomogram, z: int, membrane: npt.NDArray[Any] | None, contrast_sign: int
) -> None:
    _show(axes, contrast_sign * _mean_slice(tomogram, z), interpolation="antialiased")
    if membrane is not None and np.any(membrane[z]) and not np.all(membrane[z]):
        mask = np.asarray(membrane[z] != 0, dtype=np.float32)
        axes.contour(mask, levels=[0.5], colors=MEMBRANE_COLOUR, linewidths=0.7, alpha=0.8)


def _draw_mark(axes: Axes, mark: _Mark, radius: float) -> None:
    from matplotlib.patches import Circle

    colour, line_style, _ = STYLES[mark.outcome]
    _, y, x = (float(v) for v in mark.zyx)
    dy, dx = float(mark.normal_zyx[1]), float(mark.normal_zyx[2])
    circle = Circle((x, y), radius, fill=False, edgecolor=colour, linewidth=1.3, linestyle=line_style)
    xs, ys = ([c + radius * d, c + 1.6 * radius * d] for c, d in ((x, dx), (y, dy)))
    outline(axes.add_patch(circle), *axes.plot(xs, ys, color=colour, lw=1.3))
    if mark.label:
        # Opposite to the normal, clipped at the border of the image.
        side, va = (1, "top") if dy < 0 else (-1, "bottom")
        y += side * radius * 1.15
        outline(axes.text(x, y, mark.label, color=colour, fontsize=6.5, ha="center", va=va, clip_on=True))


def _legend(figure: Figure, marks: Sequence[_Mark], with_membrane: bool) -> None:
    from matplotlib.lines import Line2D

    outcomes = {mark.outcome for mark in marks}
    handles = [
        Line2D([], [], color=colour, linestyle=line, label=label, linewidth=1.8)
        for outcome, (colour, line, label) in STYLES.items()
        if outcome in outcomes
    ]
    if with_membrane:
        handles.append(Line2D([], [], color=MEMBRANE_COLOUR, label="membrane", linewidth=1.2))
    if handles:
        place: dict[str, Any] = {"loc": "outside lower left", "ncols": len(handles), "fontsize": 7.5}
        figure.legend(handles=handles, facecolor="0.25", edgecolor="none", labelcolor="white", **place)


def _title(tomogram: Tomogram, marks: Sequence[_Mark], truth: Candidates | None) -> str:
    counts = {outcome: sum(mark.outcome == outcome for mark in marks) for outcome in STYLES}
    # matplotlib reads text between dollar signs as mathematics.
    name = display_path(tomogram.name).replace("$", r"\$")
    if truth is None:
        candidates = counted(counts["candidate"] + counts["other kind"], "candidate")
        motors = counts[FLAGELLAR_MOTOR]
        return f"{name}: {candidates}" + (f", {counted(motors, 'flagellar motor')}" if motors else "")
    return f"{name}: {counts['true']} found, {counts['false']} false, {counts['missed']} missed"
