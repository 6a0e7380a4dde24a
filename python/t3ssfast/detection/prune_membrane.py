"""Removal of small connected components from a membrane mask."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse import csgraph

from t3ssfast.detection.connected_components import label_components
from t3ssfast.runtime.memory import retry_on_oom

__all__ = ["prune_membrane"]

# Averaged over directions, the exposed faces of voxels have 1.5 times the area of the surface
# (Cauchy-Crofton).
FACES_PER_AREA = 1.5
# Voxels labelled at a time; bounds memory and never changes the result. `cc3d.dust` would hold labels of the
# whole volume, four bytes a voxel: more than the memory budget for 512 x 1024 x 1024.
LABELLED_VOXELS = 1 << 21


@retry_on_oom("removing small membrane components")
def prune_membrane(
    mask: npt.NDArray[Any],
    voxel_size_angstrom: float,
    min_area_nm2: float,
    *,
    above: int = 0,
    out: npt.NDArray[np.uint8] | None = None,
) -> npt.NDArray[np.uint8]:
    """Remove the connected components (26-connectivity) whose surface is small.

    The area of a component is half of its exposed voxel faces, both sides of a sheet being exposed, divided
    by the 1.5-fold excess of voxel faces over a smooth surface. Voxels with values over `above` are membrane;
    those of removed components are lowered to `above`. `out` may be the mask itself.
    """
    kept = np.empty(mask.shape, np.uint8) if out is None else out
    if min_area_nm2 <= 0 or not mask.size:
        kept[...] = mask
        return kept
    thickness = max(1, LABELLED_VOXELS // math.prod(mask.shape[1:]))
    slabs = [(z0, min(z0 + thickness, len(mask))) for z0 in range(0, len(mask), thickness)]
    # Labels of a slab count from 1; with the slab's offset they count through the whole volume.
    offsets, faces, seams = [0], [np.zeros(1, np.int64)], []
    below: npt.NDArray[Any] | None = None
    for z0, z1 in slabs:
        labels, count = label_components(mask[z0:z1] > above)
        faces.append(_count_faces(mask, above, labels, count, z0, z1))
        if below is not None:
            seams.append(_touching(below, offsets[-2], labels[0], offsets[-1]))
        offsets.append(offsets[-1] + count)
        below = labels[-1].copy()
    component = _join(seams, offsets[-1] + 1)
    face_nm2 = (voxel_size_angstrom / 10.0) ** 2
    area = np.bincount(component, np.concatenate(faces)) * face_nm2 / (2.0 * FACES_PER_AREA)
    limit = np.where((area >= min_area_nm2)[component], 255, above).astype(np.uint8)
    for (z0, z1), offset in zip(slabs, offsets[:-1], strict=True):
        labels, count = label_components(mask[z0:z1] > above)
        # Label 0 is outside of all components, where no value exceeds `above`.
        np.minimum(mask[z0:z1], np.take(limit[offset : offset + count + 1], labels), out=kept[z0:z1])
    return kept


def _count_faces(
    mask: npt.NDArray[Any], above: int, labels: npt.NDArray[Any], count: int, z0: int, z1: int
) -> npt.NDArray[np.int64]:
    """Exposed voxel faces of labels 1 to `count` of a slab."""
    faces = np.zeros(count + 1, np.float64)
    for z in range(z0, z1):
        here = np.asarray(mask[z]) > above
        # Each neighbour in the mask covers one of a voxel's six faces; outside of the volume there is none.
        exposed = np.full(here.shape, 6, np.uint8)
        exposed[1:] -= here[:-1]
        exposed[:-1] -= here[1:]
        exposed[:, 1:] -= here[:, :-1]
        exposed[:, :-1] -= here[:, 1:]
        for neighbour in (z - 1, z + 1):
            if 0 <= neighbour < len(mask):
                exposed -= np.asarray(mask[neighbour]) > above
        inside = np.flatnonzero(here)
        faces += np.bincount(labels[z - z0].ravel()[inside], exposed.ravel()[inside], minlength=count + 1)
    # Sums of small integers are exact in float64.
    return faces[1:].astype(np.int64)


def _touching(
    below: npt.NDArray[Any], offset_below: int, above: npt.NDArray[Any], offset_above: int
) -> npt.NDArray[np.int64]:
    """(n, 2) labels that belong together, from the labels of the slices on both sides of a seam."""
    joint, count = label_components(np.stack([below, above]))
    first = np.zeros(count + 1, np.int64)
    pairs = []
    for labels, offset, components in ((below, offset_below, joint[0]), (above, offset_above, joint[1])):
        inside = np.flatnonzero(components)
        packed = components.ravel()[inside].astype(np.int64) << 32 | labels.ravel()[inside]
        # Neighbours along a row mostly repeat a pair: drop repetitions before sorting.
        packed = np.unique(packed[np.flatnonzero(np.diff(packed, prepend=-1))])
        component, label = packed >> 32, (packed & 0xFFFFFFFF) + offset
        new = first[component] == 0
        first[component[new][::-1]] = label[new][::-1]
        pairs.append(np.stack([first[component], label], axis=1))
    return np.concatenate(pairs)


def _join(seams: list[npt.NDArray[np.int64]], count: int) -> npt.NDArray[np.int32]:
    """Component of each of `count` labels, from pairs of labels that belong together."""
    pairs = np.concatenate(seams) if seams else np.zeros((0, 2), np.int64)
    graph = sparse.coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    component: npt.NDArray[np.int32] = csgraph.connected_components(graph, directed=False)[1]
    return component
