"""Pictures of a result: candidates drawn on slices of the tomogram, and a gallery of their windows."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from t3ssfast.candidates import Candidates
from t3ssfast.evaluation.evaluate import evaluate
from t3ssfast.io import display_path
from t3ssfast.plotting.canvas import halo, new_figure, save, scale_bar
from t3ssfast.tomogram import Tomogram

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_candidates", "draw_gallery"]

# A T3SS base is about 26 nm wide and 32 nm tall: this circle goes round it.
MARK_RADIUS_NM = 20.0
# A mark is drawn on a slice at most this far from its centre.
SLICE_REACH_NM = 11.0
# Grey values are averaged over this thickness, which shows more than a single noisy slice.
SHOWN_THICKNESS_NM = 7.0
MAX_PANELS = 9
MAX_GALLERY = 60
STYLES = {
    "candidate": ("#ffb000", "-", "candidate"),
    "true": ("#3ddc84", "-", "found (TP)"),
    "false": ("#ff5252", "-", "false (FP)"),
    "missed": ("#ffe34d", (0, (3, 2)), "missed (FN)"),
}
MEMBRANE_COLOUR = "#4fc3f7"


@dataclass(frozen=True)
class _Mark:
    """Something to point at: where, which way it points, and as what."""

    zyx: npt.NDArray[np.float32]
    normal_zyx: npt.NDArray[np.float32]
    label: str
    kind: str


def draw_candidates(
    path: str | os.PathLike[str],
    tomogram: Tomogram,
    candidates: Candidates,
    *,
    membrane: npt.NDArray[Any] | None = None,
    truth: Candidates | None = None,
    tolerance_angstrom: float = 120.0,
    contrast_sign: int = 1,
    max_panels: int = MAX_PANELS,
) -> None:
    """Draw candidates on the slices that show most of them; PNG, atomic.

    Parameters
    ----------
    path
        The PNG file.
    tomogram
        Shown in grey, protein dark.
    candidates
        A circle with the score for each; an arrow along its normal.
    membrane
        (z, y, x) mask whose outline is drawn.
    truth
        Known particles: candidates then are told apart into found and false, and missed particles shown.
    tolerance_angstrom
        Of the matching with the truth.
    contrast_sign
        -1 inverts the grey values of a tomogram with bright protein.
    max_panels
        How many slices at most.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    marks = _marks(candidates, truth, tolerance_angstrom)
    nm = tomogram.voxel_size_angstrom / 10
    shown = _cover([float(m.zyx[0]) for m in marks], SLICE_REACH_NM / nm, tomogram.shape[0], max_panels)
    _, height, width = tomogram.shape
    columns = min(len(shown), max(1, round(math.sqrt(len(shown) * height / width))))
    rows = math.ceil(len(shown) / columns)
    side = 3.6
    figure = new_figure(columns * side, rows * (side * height / width + 0.12) + 0.6)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, z in zip(panels, shown, strict=False):
        _draw_slice(axes, tomogram, z, membrane, contrast_sign)
        for mark in marks:
            if abs(mark.zyx[0] - z) <= SLICE_REACH_NM / nm:
                _draw_mark(axes, mark, MARK_RADIUS_NM / nm)
        axes.set_title(f"z = {z}  ({z * nm:.0f} nm)", fontsize=8, loc="left", pad=3)
        # Marks at the rim must not widen the picture.
        axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
        scale_bar(axes, width, nm)
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    _legend(figure, {m.kind for m in marks}, membrane is not None)
    figure.suptitle(_headline(tomogram, marks, truth), fontsize=10, x=0.01, ha="left")
    save(figure, path)


def draw_gallery(
    path: str | os.PathLike[str],
    tomogram: Tomogram,
    candidates: Candidates,
    *,
    window_nm: float = 68.0,
    truth: Candidates | None = None,
    tolerance_angstrom: float = 120.0,
    contrast_sign: int = 1,
    max_windows: int = MAX_GALLERY,
) -> None:
    """Draw the window about each candidate, highest score first; PNG, atomic.

    Parameters are those of `draw_candidates`; `window_nm` is the edge of what is shown of each, and missed
    particles come last.
    """
    marks = _marks(candidates, truth, tolerance_angstrom)[:max_windows]
    nm = tomogram.voxel_size_angstrom / 10
    size = max(8, round(window_nm / nm))
    columns = 8
    rows = max(1, math.ceil(len(marks) / columns))
    figure = new_figure(columns * 1.2, rows * 1.33 + 0.6)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, mark in zip(panels, marks, strict=False):
        window = contrast_sign * _window(tomogram, mark.zyx, size)
        low, high = np.percentile(window, [0.5, 99.5])
        axes.imshow(window, cmap="gray", vmin=low, vmax=high, interpolation="bicubic")
        colour, line, _ = STYLES[mark.kind]
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(edgecolor=colour, linewidth=2.0, linestyle=line)
        axes.set_title(mark.label or "missed", fontsize=7, color="0.1", pad=3)
        # A stub along the normal: as short as the particle is steep in z.
        middle = (size - 1) / 2
        dy, dx = mark.normal_zyx[1] * size * 0.22, mark.normal_zyx[2] * size * 0.22
        axes.plot(
            [middle + 0.9 * dx, middle + 1.9 * dx], [middle + 0.9 * dy, middle + 1.9 * dy], color=colour
        )
        axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5))
    if marks:
        scale_bar(panels[0], size, nm)
    for axes in panels[len(marks) :]:
        axes.set_axis_off()
    _legend(figure, {m.kind for m in marks}, False)
    figure.suptitle(
        f"{size} x {size} voxel windows ({size * nm:.0f} nm), score above", fontsize=9, x=0.01, ha="left"
    )
    save(figure, path)


def _marks(candidates: Candidates, truth: Candidates | None, tolerance: float) -> list[_Mark]:
    """Candidates by score, then the truth that none of them found."""
    found: dict[int, int] = {}
    if truth is not None:
        found = {p.candidate: p.truth for p in evaluate(candidates, truth, tolerance).pairs}
    marks = []
    for i in np.argsort(-candidates.score, kind="stable").tolist():
        kind = "candidate" if truth is None else "true" if i in found else "false"
        label = f"{candidates.score[i]:.2f}"
        marks.append(_Mark(candidates.centre_zyx[i], candidates.normal_zyx[i], label, kind))
    if truth is not None:
        scale = truth.voxel_size_angstrom / candidates.voxel_size_angstrom
        for i in sorted(set(range(len(truth))) - set(found.values())):
            marks.append(_Mark(truth.centre_zyx[i] * scale, truth.normal_zyx[i], "", "missed"))
    return marks


def _cover(depths: Sequence[float], reach: float, count: int, most: int) -> list[int]:
    """Slices that between them show all depths, or as many as `most` can; three where there are none."""
    left = np.sort(np.asarray(depths))
    if not len(left):
        return sorted({int(count * part) for part in (0.25, 0.5, 0.75)})
    shown: list[int] = []
    while len(left) and len(shown) < most:
        candidates = np.clip(np.round(left + reach / 2), 0, count - 1)
        near = np.abs(candidates[:, None] - left) <= reach
        best = candidates[near.sum(axis=1).argmax()]
        # In the middle of those it shows, where they look their best.
        middle = left[np.abs(left - best) <= reach]
        shown.append(int(np.clip(round((middle.min() + middle.max()) / 2), 0, count - 1)))
        left = left[np.abs(left - shown[-1]) > reach]
    return sorted(shown)


def _mean_slice(tomogram: Tomogram, z: int) -> npt.NDArray[np.float32]:
    """Slice z averaged with its neighbours."""
    half = int(SHOWN_THICKNESS_NM / 2 / (tomogram.voxel_size_angstrom / 10))
    part = tomogram.data[max(0, z - half) : z + half + 1]
    mean: npt.NDArray[np.float32] = np.asarray(part, dtype=np.float32).mean(axis=0)
    return mean


def _window(tomogram: Tomogram, zyx: npt.NDArray[np.float32], size: int) -> npt.NDArray[np.float32]:
    """The window centred at a position, reflected at the edge of the volume as the classifier sees it."""
    z, y, x = np.round(zyx).astype(int).tolist()
    image = _mean_slice(tomogram, min(max(z, 0), tomogram.shape[0] - 1))
    padded = np.pad(image, size, mode="reflect")
    top, left = y + size - size // 2, x + size - size // 2
    return padded[top : top + size, left : left + size]


def _draw_slice(
    axes: Axes, tomogram: Tomogram, z: int, membrane: npt.NDArray[Any] | None, contrast_sign: int
) -> None:
    image = contrast_sign * _mean_slice(tomogram, z)
    low, high = np.percentile(image, [0.5, 99.5])
    axes.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="antialiased")
    if membrane is not None and np.any(membrane[z]) and not np.all(membrane[z]):
        outline = np.asarray(membrane[z] != 0, dtype=np.float32)
        axes.contour(outline, levels=[0.5], colors=MEMBRANE_COLOUR, linewidths=0.7, alpha=0.8)
    axes.set(xticks=[], yticks=[])


def _draw_mark(axes: Axes, mark: _Mark, radius: float) -> None:
    from matplotlib.patches import Circle

    colour, line, _ = STYLES[mark.kind]
    _, y, x = (float(v) for v in mark.zyx)
    dy, dx = float(mark.normal_zyx[1]), float(mark.normal_zyx[2])
    circle = Circle((x, y), radius, fill=False, edgecolor=colour, linewidth=1.3, linestyle=line)
    circle.set_path_effects(halo())
    axes.add_patch(circle)
    (stub,) = axes.plot(
        [x + radius * dx, x + 1.6 * radius * dx],
        [y + radius * dy, y + 1.6 * radius * dy],
        color=colour,
        lw=1.3,
    )
    stub.set_path_effects(halo())
    if mark.label:
        # On the side away from the needle, inside the picture.
        below = dy < 0
        label = axes.text(
            x,
            y + (1 if below else -1) * radius * 1.15,
            mark.label,
            color=colour,
            fontsize=6.5,
            ha="center",
            va="top" if below else "bottom",
            clip_on=True,
        )
        label.set_path_effects(halo())


def _legend(figure: Figure, kinds: set[str], with_membrane: bool) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=colour, linestyle=line, label=label, linewidth=1.8)
        for kind, (colour, line, label) in STYLES.items()
        if kind in kinds
    ]
    if with_membrane:
        handles.append(Line2D([], [], color=MEMBRANE_COLOUR, label="membrane", linewidth=1.2))
    if handles:
        legend = figure.legend(handles=handles, loc="outside lower left", ncols=len(handles), fontsize=7.5)
        legend.get_frame().set(facecolor="0.25", edgecolor="none")
        for text in legend.get_texts():
            text.set_color("white")


def _headline(tomogram: Tomogram, marks: list[_Mark], truth: Candidates | None) -> str:
    counts = {kind: sum(m.kind == kind for m in marks) for kind in STYLES}
    # Between dollar signs matplotlib reads a language of its own.
    name = display_path(tomogram.name).replace("$", r"\$")
    if truth is None:
        return f"{name}: {counts['candidate']} candidates"
    return f"{name}: {counts['true']} found, {counts['false']} false, {counts['missed']} missed"
