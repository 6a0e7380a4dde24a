"""Metrics of segmented membranes, with and without the membrane that the missing wedge hides."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from t3ssfast.training.metrics import overlap_metrics

__all__ = ["CAP_DEGREES", "membrane_metrics", "surface_normals"]

BoolArray = npt.NDArray[np.bool_]
Float64Array = npt.NDArray[np.float64]

# Membrane whose normal is within this angle of the beam is a cap, at any tilt range.
CAP_DEGREES = 35.0
# Segmented membrane within this distance of excluded membrane is excluded too.
EXCLUDED_DISTANCE_VOXELS = 5
# Sigmas, in voxels, of the blur before the gradient and of the average of the structure tensor.
EDGE_SIGMA, NORMAL_SIGMA = 1.0, 3.0


def membrane_metrics(
    masks: Iterable[tuple[npt.NDArray[Any], npt.NDArray[Any], float]],
) -> dict[str, dict[str, float]]:
    """Compute Dice, precision and recall of membrane voxels, pooled over tomograms.

    Each tomogram comes as segmented mask, true mask and maximum tilt about the y axis in degrees. "outside
    the wedge" excludes membrane whose normal the tilts did not sample, which no projection shows edge-on.
    """
    counts: dict[str, npt.NDArray[np.int64]] = {}
    for segmented, true, max_tilt in masks:
        found, known = np.asarray(segmented) != 0, np.asarray(true) != 0
        near_found, near_known = (
            ndimage.binary_dilation(mask, np.ones((3, 3, 3), bool)) for mask in (found, known)
        )
        for name, excluded in _excluded_membrane(known, max_tilt).items():
            counted = ~_close_to(excluded, known) if excluded.any() else np.ones_like(known)
            a, b = found & counted, known & counted
            masks_to_count = (a & b, a, b, a & near_known, b & near_found)
            counted_voxels = np.array([np.count_nonzero(mask) for mask in masks_to_count], np.int64)
            counts[name] = counts.get(name, np.zeros(5, np.int64)) + counted_voxels
    metrics = {}
    for name, count in counts.items():
        hits, n_found, n_true, found_near_true, true_near_found = count.tolist()
        metrics[name] = {
            **overlap_metrics(hits, n_found, n_true),
            "dice_within_a_voxel": (found_near_true + true_near_found) / max(1, n_found + n_true),
            "precision_within_a_voxel": found_near_true / max(1, n_found),
            "recall_within_a_voxel": true_near_found / max(1, n_true),
        }
    return metrics


def _excluded_membrane(mask: BoolArray, max_tilt: float) -> dict[str, BoolArray]:
    """Return the part of a membrane that each set of metrics excludes."""
    voxels, normal = surface_normals(mask)
    along_beam = np.abs(normal[:, 0])
    chosen = {
        "everywhere": np.zeros(len(voxels), bool),
        "outside the wedge": along_beam > np.abs(normal[:, 2]) * math.tan(math.radians(max_tilt)),
        "outside the caps": along_beam > math.cos(math.radians(CAP_DEGREES)),
    }
    excluded = {name: np.zeros(mask.shape, bool) for name in chosen}
    for name, of_voxels in chosen.items():
        excluded[name][tuple(voxels[of_voxels].T)] = True
    return excluded


def surface_normals(mask: BoolArray) -> tuple[npt.NDArray[np.int64], Float64Array]:
    """Return the (n, 3) voxels of a mask and unit normals, of either sign, from the structure tensor."""
    voxels = np.argwhere(mask)
    if not len(voxels):
        return voxels, np.zeros((0, 3))
    gradient = np.gradient(ndimage.gaussian_filter(mask.astype(np.float32), EDGE_SIGMA))
    tensor = np.empty((len(voxels), 3, 3), np.float32)
    for i in range(3):
        for j in range(i, 3):
            product = ndimage.gaussian_filter(gradient[i] * gradient[j], NORMAL_SIGMA)
            tensor[:, i, j] = tensor[:, j, i] = product[tuple(voxels.T)]
    return voxels, np.linalg.eigh(tensor.astype(np.float64))[1][:, :, 2]


def _close_to(excluded: BoolArray, mask: BoolArray) -> BoolArray:
    """Return the voxels near a mask whose nearest voxel in it is excluded."""
    distance, nearest = ndimage.distance_transform_edt(~mask, return_indices=True)
    close: BoolArray = excluded[tuple(nearest)] & (distance <= EXCLUDED_DISTANCE_VOXELS)
    return close
