"""How well membranes are found, everywhere and where the missing wedge has left something to be found."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from t3ssfast.training.segmenter import overlap_figures

__all__ = ["CAP_DEGREES", "membrane_figures", "surface_normals"]

BoolArray = npt.NDArray[np.bool_]

# Membrane whose normal is nearer to the beam than this is a cap, whatever the tilt range.
CAP_DEGREES = 35.0
# Found membrane so near to what is left out is left out with it (voxels).
BESIDE = 5
# The gradient of the mask blurred by the first is averaged over the second for a normal (sigmas in voxels).
EDGE_SIGMA, NORMAL_SIGMA = 1.0, 3.0


def membrane_figures(
    masks: Iterable[tuple[npt.NDArray[Any], npt.NDArray[Any], float]],
) -> dict[str, dict[str, float]]:
    """Dice, precision and recall of found voxels, pooled over tomograms.

    Parameters
    ----------
    masks
        For each tomogram the (z, y, x) mask that was found, the true one, and the largest tilt in degrees,
        about the y axis.

    Returns
    -------
    The figures of "everywhere"; of what is "outside the wedge": without membrane whose normal the tilts have
    not sampled, which no projection shows edge-on; and of what is "outside the caps" of normals within
    `CAP_DEGREES` of the beam. Each with the same where a distance of one voxel counts as a hit.
    """
    chosen: dict[str, Callable[[npt.NDArray[np.float64], float], BoolArray]] = {
        "everywhere": lambda normal, tilt: np.zeros(len(normal), bool),
        "outside the wedge": lambda normal, tilt: (
            np.abs(normal[:, 0]) > np.abs(normal[:, 2]) * math.tan(math.radians(tilt))
        ),
        "outside the caps": lambda normal, tilt: np.abs(normal[:, 0]) > math.cos(math.radians(CAP_DEGREES)),
    }
    counts = {name: np.zeros(5, np.int64) for name in chosen}
    for found, true, tilt in masks:
        seen, there = np.asarray(found) != 0, np.asarray(true) != 0
        where, normal = surface_normals(there)
        about_seen, about_there = (
            ndimage.binary_dilation(m, np.ones((3, 3, 3), bool)) for m in (seen, there)
        )
        for name, unseen in chosen.items():
            out = np.zeros(there.shape, bool)
            out[tuple(where[unseen(normal, tilt)].T)] = True
            counted = ~_beside(out, there) if out.any() else np.ones_like(out)
            a, b = seen & counted, there & counted
            parts = (a & b, a, b, a & about_there, b & about_seen)
            counts[name] += [np.count_nonzero(part) for part in parts]
    figures = {}
    for name, count in counts.items():
        hits, found_voxels, true_voxels, near_found, near_true = (int(n) for n in count)
        figures[name] = {
            **overlap_figures(hits, found_voxels, true_voxels),
            "dice_within_a_voxel": (near_found + near_true) / max(1, found_voxels + true_voxels),
            "precision_within_a_voxel": near_found / max(1, found_voxels),
            "recall_within_a_voxel": near_true / max(1, true_voxels),
        }
    return figures


def surface_normals(mask: BoolArray) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """(n, 3) voxels of a mask, and unit normals there (either sign), by the structure tensor."""
    where = np.argwhere(mask)
    if not len(where):
        return where, np.zeros((0, 3))
    blurred = ndimage.gaussian_filter(mask.astype(np.float32), EDGE_SIGMA)
    along = np.gradient(blurred)
    tensor = np.empty((len(where), 3, 3), np.float32)
    for i in range(3):
        for j in range(i, 3):
            product = ndimage.gaussian_filter(along[i] * along[j], NORMAL_SIGMA)
            tensor[:, i, j] = tensor[:, j, i] = product[tuple(where.T)]
    return where, np.linalg.eigh(tensor.astype(np.float64))[1][:, :, 2]


def _beside(out: BoolArray, mask: BoolArray) -> BoolArray:
    """Voxels within `BESIDE` of the mask whose nearest voxel of it is to be left out."""
    distance, nearest = ndimage.distance_transform_edt(~mask, return_indices=True)
    beside: BoolArray = out[tuple(nearest)] & (distance <= BESIDE)
    return beside
