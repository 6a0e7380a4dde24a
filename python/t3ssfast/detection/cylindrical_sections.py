"""Boxes around candidates, resampled on half-planes from their axes, where every particle stands upright."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.models import AZIMUTHS
from t3ssfast.runtime.upload import Uploader

__all__ = [
    "HeldSlices",
    "axis_correction",
    "axis_frames",
    "box_size",
    "correct_axis",
    "cut_boxes",
    "cylindrical_sections",
    "rotate_frames",
]

Float64Array = npt.NDArray[np.float64]

BOXES_PER_BATCH = 16
# Slices that are prepared together on a device.
SLICES_PER_UPLOAD = 16
# Fraction of the rows on the inner side of the centre: a T3SS reaches farther out of the cell than into it.
INNER_FRACTION = 5 / 12


def box_size(height: int) -> int:
    """Return the side of a box that holds sections of `height` rows, except for their corners."""
    return height * 4 // 3


def axis_frames(axis_zyx: Float64Array) -> Float64Array:
    """Complete (n, 3) axes, of any length but 0, to (n, 3, 3) right-handed orthonormal frames.

    The rows are the axis, the direction across it closest to the beam (or y), and their cross product.
    """
    axis = axis_zyx / np.linalg.norm(axis_zyx, axis=1, keepdims=True)
    towards = np.where(np.abs(axis[:, :1]) < 0.9, [[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]])
    across = towards - (axis * towards).sum(axis=1, keepdims=True) * axis
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    return np.stack([axis, across, np.cross(axis, across)], axis=1)


def rotate_frames(frames: Float64Array, angle: Float64Array) -> Float64Array:
    """Rotate (n, 3, 3) frames about their axes by (n,) radians, from the second row towards the third."""
    along, across, quarter = frames.transpose(1, 0, 2)
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    return np.stack([along, cos * across + sin * quarter, cos * quarter - sin * across], axis=1)


def correct_axis(frames: Float64Array, tilt: Float64Array) -> Float64Array:
    """Tilt the axes of frames by (n, 2) radians, towards their second and third rows; return unit vectors."""
    angle = np.linalg.norm(tilt, axis=1, keepdims=True)
    towards = np.einsum("nij,ni->nj", frames[:, 1:], tilt) / np.maximum(angle, np.finfo(np.float64).tiny)
    return np.asarray(np.cos(angle) * frames[:, 0] + np.sin(angle) * towards)


def axis_correction(axis_zyx: Float64Array, frames: Float64Array) -> Float64Array:
    """Return the (n, 2) radians by which (n, 3) axes are tilted against frames; inverts `correct_axis`.

    Axes may have any length but 0, and so may the orthogonal rows of a frame.
    """
    # Components, each in units of the length of its row.
    components = np.einsum("nij,nj->ni", frames, axis_zyx) / (frames**2).sum(axis=2)
    along, sideways = components[:, :1], components[:, 1:]
    across = np.linalg.norm(sideways, axis=1, keepdims=True)
    return np.asarray(np.arctan2(across, along) * sideways / np.maximum(across, np.finfo(np.float64).tiny))


def cylindrical_sections(
    boxes: Tensor, centre_zyx: Float64Array, frames: Float64Array, height: int
) -> Tensor:
    """Resample boxes linearly on half-planes that end at an axis; 0 outside the box.

    Parameters
    ----------
    boxes, centre_zyx
        (n, side, side, side) float32, and (n, 3) voxels from voxel side // 2 to the centre of the sections.
    frames
        (n, 3, 3) as returned by `axis_frames`; the length of a row is the step along it, in voxels.

    Returns
    -------
    (n, AZIMUTHS, height, height // 2) float32. Sections run from the second row of the frame to the third,
    rows along the axis with the centre in row floor(height * INNER_FRACTION), columns away from the axis from
    half a step off.
    """
    along = np.arange(height) - int(height * INNER_FRACTION)
    radius = np.arange(height // 2) + 0.5
    angle = 2 * np.pi * np.arange(AZIMUTHS) / AZIMUTHS
    across, quarter = (turn(angle)[:, None, None] * radius for turn in (np.cos, np.sin))
    cylinder = np.stack(np.broadcast_arrays(along[:, None], across, quarter), axis=-1)
    side, device = boxes.shape[-1], boxes.device
    # Where the boxes are: on a CPU, too, PyTorch takes half of NumPy's time. xyz, as grid_sample takes it.
    cylinder_zyx = torch.from_numpy(cylinder.reshape(-1, 3)).to(device)
    frames_xyz = torch.from_numpy(np.ascontiguousarray(frames[..., ::-1], np.float64)).to(device)
    middle_xyz = torch.from_numpy(
        np.ascontiguousarray((centre_zyx + side // 2)[:, None, ::-1], np.float64)
    ).to(device)
    points = cylinder_zyx @ frames_xyz + middle_xyz
    # grid_sample with align_corners=False: -1 and 1 are the outer edges of the first and last voxel.
    normalised = points.mul_(2).add_(1).div_(side).sub_(1).float()
    grid = normalised.reshape(len(boxes), AZIMUTHS * height, height // 2, 1, 3)
    values = grid_sample(boxes[:, None], grid, align_corners=False)
    return values.reshape(len(boxes), AZIMUTHS, height, height // 2)


class HeldSlices:
    """Prepared slices of a tomogram that are held while boxes are cut in order of z.

    Parameters
    ----------
    grid
        The tomogram on the model's grid.
    below
        Number of slices that stay below those of the last boxes, for boxes that are cut later.
    upload
        Prepares and holds the slices on its device, once for all boxes; None takes the CPU.
    """

    def __init__(self, grid: PreparedTomogram, below: int = 0, upload: Uploader | None = None) -> None:
        self.grid = grid
        self._below, self._upload = below, upload
        # For each slice that is held, the slices that it was prepared with, and the number of the first.
        self._held: dict[int, tuple[int, Tensor]] = {}

    @property
    def device(self) -> torch.device:
        """The device that holds the slices."""
        return torch.device("cpu") if self._upload is None else self._upload.device

    def copy_box(self, low_zyx: npt.NDArray[np.int64], end_zyx: npt.NDArray[np.int64], out: Tensor) -> None:
        """Copy the voxels from `low_zyx` up to `end_zyx`, of slices from the last `move_to` on."""
        (z0, y0, x0), (z1, y1, x1) = low_zyx.tolist(), end_zyx.tolist()
        self._prepare([z for z in range(z0, z1) if z not in self._held])
        # On a CPU, NumPy takes a quarter of the time of PyTorch's operators.
        target: Any = out.numpy() if self._upload is None else out
        z = z0
        while z < z1:
            first, prepared = self._held[z]
            end = min(z1, first + len(prepared))
            source: Any = prepared.numpy() if self._upload is None else prepared
            target[z - z0 : end - z0] = source[z - first : end - first, y0:y1, x0:x1]
            z = end

    def move_to(self, z: int) -> None:
        """Drop the slices that boxes from slice z on do not need."""
        self._held = {n: held for n, held in self._held.items() if n >= z - self._below}

    def _prepare(self, missing: list[int]) -> None:
        if self._upload is None:
            # One by one, so that each slice is freed by itself.
            self._held |= {z: (z, torch.from_numpy(self.grid.slab(z, z + 1))) for z in missing}
            return
        # Several at a time, because each upload waits for the device and each copy into a box has its cost.
        for block in sorted({z // SLICES_PER_UPLOAD for z in missing}):
            first = block * SLICES_PER_UPLOAD
            end = min(first + SLICES_PER_UPLOAD, self.grid.shape[0])
            prepared = self.grid.slab_on_device(first, end, self._upload)
            self._held |= dict.fromkeys(range(first, end), (first, prepared))


def cut_boxes(
    slices: HeldSlices, middle_zyx: npt.NDArray[np.int64], side: int
) -> Iterator[tuple[npt.NDArray[np.int64], Tensor]]:
    """Yield (m,) indices into (n, 3) voxels, and (m, side, side, side) boxes from side // 2 before them.

    The boxes are where the slices are. Outside the tomogram a box is 0, the mean of the grey values: a
    reflected image would look rotationally symmetric about an axis near a face, as a T3SS does.
    """
    order = np.argsort(middle_zyx[:, 0], kind="stable")
    for start in range(0, len(order), BOXES_PER_BATCH):
        chosen = order[start : start + BOXES_PER_BATCH]
        boxes = torch.zeros((len(chosen), side, side, side), device=slices.device)
        slices.move_to(int(middle_zyx[chosen[0], 0]) - side // 2)
        for box, middle in zip(boxes, middle_zyx[chosen], strict=True):
            corner = middle - side // 2
            low, end = np.maximum(corner, 0), np.minimum(corner + side, slices.grid.shape)
            inside = tuple(map(slice, (low - corner).tolist(), (end - corner).tolist()))
            slices.copy_box(low, end, box[inside])
        yield chosen, boxes
