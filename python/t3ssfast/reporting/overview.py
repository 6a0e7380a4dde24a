"""Overview of a tomogram: slices with the outline of the membrane, and points of the membrane for 3D."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from contourpy import contour_generator
from scipy.ndimage import zoom

from t3ssfast.plotting.candidates import SLICE_THICKNESS_NM, choose_slices
from t3ssfast.plotting.canvas import grey_limits
from t3ssfast.reporting.images import data_uri
from t3ssfast.tomogram import Tomogram

__all__ = ["membrane_points", "overview_slices"]

# Longest side of a slice in the page, pixels.
MAX_PIXELS = 420
# Candidates within this distance in z are marked on a slice.
REACH_NM = 14.0
# Contours shorter than this, pixels, are specks.
MIN_CONTOUR_PIXELS = 8.0
MAX_POINTS = 700
QUALITY = 55


def overview_slices(
    tomogram: Tomogram,
    centre_zyx: npt.NDArray[Any],
    membrane: npt.NDArray[Any] | None,
    contrast_sign: int,
    count: int,
) -> list[dict[str, Any]]:
    """Return slices that show most candidates, as plain values for the page.

    Parameters
    ----------
    centre_zyx
        (n, 3) positions of candidates, in voxels of the tomogram.
    membrane
        (z, y, x) mask of the tomogram's shape.
    count
        Number of slices, at most.
    """
    nm = tomogram.voxel_size_angstrom / 10
    depth, height, width = tomogram.shape
    reach = REACH_NM / nm
    chosen = choose_slices(centre_zyx[:, 0].astype(float).tolist(), reach, depth)
    if len(chosen) > count:
        # Those that show most candidates, in the order of z.
        shown = [int((np.abs(centre_zyx[:, 0] - z) <= reach).sum()) for z in chosen]
        best = np.argsort(-np.array(shown), kind="stable")[:count]
        chosen = sorted(chosen[int(k)] for k in best)
    factor = min(1.0, MAX_PIXELS / max(height, width))
    half = int(SLICE_THICKNESS_NM / 2 / nm)
    slices = []
    for z in chosen:
        slab = np.asarray(tomogram.data[max(0, z - half) : z + half + 1], np.float32).mean(axis=0)
        image = _shrunk(np.nan_to_num(slab) * contrast_sign, factor)
        low, high = grey_limits(image)
        grey = np.clip((image - low) / max(high - low, 1e-30) * 255, 0, 255).astype(np.uint8)
        outline = "" if membrane is None else _outline(np.asarray(membrane[z] != 0, np.float32), factor)
        slices.append({"z": int(z), "reach": reach, "src": data_uri(grey, QUALITY), "outline": outline})
    return slices


def _shrunk(image: npt.NDArray[np.float32], factor: float) -> npt.NDArray[np.float32]:
    if factor >= 1:
        return image
    binning = max(1, int(1 / factor))
    y, x = (n // binning for n in image.shape)
    mean = image[: y * binning, : x * binning].reshape(y, binning, x, binning).mean(axis=(1, 3))
    rest = factor * binning
    return np.asarray(zoom(mean, rest, order=1) if rest < 1 else mean, np.float32)


def _outline(mask: npt.NDArray[np.float32], factor: float) -> str:
    """Return the outline of a slice of a mask as an SVG path, in voxels."""
    if not mask.any() or mask.all():
        return ""
    # Not finer than the pixels of the slice.
    binning = max(1, int(1 / factor)) + 1
    y, x = (n // binning for n in mask.shape)
    if min(y, x) < 2:
        return ""
    coarse = mask[: y * binning, : x * binning].reshape(y, binning, x, binning).mean(axis=(1, 3))
    parts = []
    for line in contour_generator(z=coarse).lines(0.5):
        points = np.asarray(line) * binning + (binning - 1) / 2
        length = np.linalg.norm(np.diff(points, axis=0), axis=1).sum() * factor
        if length >= MIN_CONTOUR_PIXELS:
            parts.append("M" + " ".join(f"{a:.0f},{b:.0f}" for a, b in points))
    return "".join(parts)


def membrane_points(membrane: npt.NDArray[Any], seed: int = 0) -> list[list[int]]:
    """Return voxels of a membrane mask, z, y, x, drawn at random."""
    flat = np.flatnonzero(np.asarray(membrane).reshape(-1))
    if len(flat) > MAX_POINTS:
        flat = np.sort(np.random.default_rng(seed).choice(flat, MAX_POINTS, replace=False))
    points: list[list[int]] = np.stack(np.unravel_index(flat, membrane.shape), axis=1).tolist()
    return points
