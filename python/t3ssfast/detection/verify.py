"""A second look at each candidate: a network that sees all about its axis says how sure it is of a T3SS.

The classifier sees slices; some of what it takes for a T3SS falsely is told by looking at the whole. The
membrane says where the axis of a T3SS would point, so what is about it can be laid out in half-planes that
end there: every particle then stands upright, whichever way the beam came, and what is alike all round adds
up. A few candidates a tomogram cost next to nothing against the millions of windows before them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import logit
from torch import Tensor
from torch.nn.functional import grid_sample

from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.models import AZIMUTHS, VERIFIER_ANSWERS, LoadedModel

__all__ = [
    "VERIFIER_PART",
    "axis_correction",
    "axis_frames",
    "box_size",
    "correct_axis",
    "cut_boxes",
    "cylindrical_sections",
    "missing_membrane_penalty",
    "rotate_frames",
    "verify",
]

FloatArray = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

BATCH = 16
# Probabilities this close to 0 and 1 are told apart no further; it bounds their logarithms.
EDGE = 1e-4
# The verifier's part of the log-odds: on the candidates of the calibration's 36 random tomograms the average
# precision is 0.955 with 0.2, 0.962 with 0.3, 0.965 with 0.4 and 0.5, 0.964 with 0.6; of another simulator's
# it is best with 0.4 to 0.6.
VERIFIER_PART = 0.4
# Of a half-plane's rows, those on the inner side of the candidate: what reaches out of the cell is longer.
INNER_PART = 5 / 12
# Looked at again about the centre and along the axis that a look saw, a T3SS is told more surely.
LOOKS = 3
# Then it is seen thrice more from where the looks have led, turned about its axis by so many degrees and from
# so many nanometres aside: what one set of half-planes happens to show averages out.
VIEWS = ((180 / AZIMUTHS, 0.0), (90 / AZIMUTHS, 1.1), (90 / AZIMUTHS, -1.1))
# Nearer to found membrane than the first, nothing is held against a candidate; from the second on, `DOUBT`.
NEAR_NM, FAR_NM = 15.0, 55.0
# The wedge takes membrane whose normal is within the first of the beam, and leaves what is beyond the second.
TAKEN_DEGREES, LEFT_DEGREES = 18.0, 50.0
# Log-odds held against a candidate far from all membrane that was found, if its axis says that its own would
# have been left.
DOUBT = 1.0
# A look moves a centre by no more: what is farther off was taught as something else.
REACH_NM = 8.0
# A look turns an axis by no more.
REACH_DEGREES = 60.0


def verify(
    grid: PreparedTomogram,
    centre_zyx: npt.ArrayLike,
    normal_zyx: npt.ArrayLike,
    score: npt.NDArray[np.float32],
    verifier: LoadedModel,
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Where candidates are, how they stand, and the odds that a classifier and a verifier agree on.

    The two have learned from different things, windows and half-planes: a weighted mean of their log-odds
    ranks better than either. The verifier looks several times, each time about the centre and along the axis
    that it saw before: of a T3SS that faces the beam the wedge leaves hardly any membrane to tell its axis.
    How sure it is at the last look is averaged with what it answers to other views (`VIEWS`).

    Parameters
    ----------
    grid
        The tomogram on the verifier's grid.
    centre_zyx
        (n, 3) candidates, in voxels of that grid.
    normal_zyx
        (n, 3) unit vectors along their axes, out of the cell; as of `pick.orient`.
    score
        (n,) what the classifier gave them, as a probability.
    verifier
        Of the kind "verifier".

    Returns
    -------
    (n, 3) float64 centres in voxels of the grid, (n, 3) float64 unit vectors along the axes, and (n,) float64
    log-odds.
    """
    centres = np.asarray(centre_zyx, np.float64).reshape(-1, 3)
    frames = axis_frames(np.asarray(normal_zyx, np.float64).reshape(-1, 3))
    reach = REACH_NM * 10 / grid.voxel_size_angstrom
    answers = np.zeros((len(centres), len(VERIFIER_ANSWERS)))
    for _ in range(LOOKS):
        (answers,) = _look(grid, centres, frames, verifier)
        moved = _shortened(np.einsum("nij,ni->nj", frames, answers[:, 1:4]), reach)
        centres = np.clip(centres + moved, 0, np.array(grid.shape) - 1)
        frames = axis_frames(correct_axis(frames, _shortened(answers[:, 4:], math.radians(REACH_DEGREES))))
    seen = np.mean(
        [answers[:, 0], *(view[:, 0] for view in _look(grid, centres, frames, verifier, VIEWS))], axis=0
    )
    first = logit(np.clip(score.astype(np.float64), EDGE, 1 - EDGE))
    agreed: Float64Array = (1 - VERIFIER_PART) * first + VERIFIER_PART * seen
    return centres, frames[:, 0], agreed


def missing_membrane_penalty(
    membrane: npt.NDArray[Any], centre_zyx: Float64Array, axis_zyx: Float64Array, voxel_size_angstrom: float
) -> Float64Array:
    """What speaks against candidates where no membrane was found, in log-odds.

    A T3SS stands on a membrane, along its normal. What the segmenter does not find of a cell's membrane the
    wedge has taken, and that faces the beam: far from all that was found, an axis across the beam belongs to
    no T3SS.

    Parameters
    ----------
    membrane
        (z, y, x) mask, non-zero is membrane.
    centre_zyx
        (n, 3) candidates, in voxels of the mask.
    axis_zyx
        (n, 3) unit vectors along their axes.
    voxel_size_angstrom
        Of the mask.

    Returns
    -------
    (n,) from 0 to `DOUBT`.
    """
    far = np.array([_distance_nm(membrane, centre, voxel_size_angstrom / 10) for centre in centre_zyx])
    from_beam = np.degrees(np.arccos(np.clip(np.abs(axis_zyx[:, 0]), 0, 1)))
    lost = np.interp(far, (NEAR_NM, FAR_NM), (0.0, 1.0))
    seen = np.interp(from_beam, (TAKEN_DEGREES, LEFT_DEGREES), (0.0, 1.0))
    doubted: Float64Array = DOUBT * lost * seen
    return doubted


def _distance_nm(membrane: npt.NDArray[Any], centre: Float64Array, nm_per_voxel: float) -> float:
    """From a place to the middle of the nearest voxel of membrane, as far as `FAR_NM`."""
    reach = FAR_NM / nm_per_voxel
    low = np.maximum(np.ceil(centre - reach), 0).astype(int)
    high = np.floor(centre + reach).astype(int) + 1
    (z0, y0, x0), (z1, y1, x1) = low, high
    there = np.argwhere(membrane[z0:z1, y0:y1, x0:x1]) + (low - centre)
    return min(FAR_NM, math.sqrt((there**2).sum(axis=1).min(initial=reach**2)) * nm_per_voxel)


def _shortened(steps: Float64Array, reach: float) -> Float64Array:
    """(n, k) vectors, those longer than a reach cut down to it."""
    shortened: Float64Array = steps * (
        reach / np.maximum(np.linalg.norm(steps, axis=1, keepdims=True), reach)
    )
    return shortened


def _look(
    grid: PreparedTomogram,
    centres: Float64Array,
    frames: Float64Array,
    verifier: LoadedModel,
    views: Sequence[tuple[float, float]] = ((0.0, 0.0),),
) -> Float64Array:
    """(v, n, 6) what a verifier answers about candidates, turned by degrees and from nanometres aside."""
    height = verifier.metadata.window_px
    assert height is not None, "load_model gives every verifier a height"
    middle = np.floor(centres + 0.5).astype(np.int64)
    answers = np.zeros((len(views), len(centres), len(VERIFIER_ANSWERS)))
    for chosen, boxes in cut_boxes(grid, middle, box_size(height)):
        within, upright = torch.from_numpy(boxes).to(verifier.device), frames[chosen]
        for view, (degrees, nm) in enumerate(views):
            aside = nm * 10 / grid.voxel_size_angstrom * upright[:, 1]
            turned = rotate_frames(upright, np.full(len(chosen), math.radians(degrees)))
            planes = cylindrical_sections(within, centres[chosen] - middle[chosen] + aside, turned, height)
            with torch.inference_mode():
                answers[view, chosen] = verifier.fused(planes).double().cpu().numpy()
    return answers


def box_size(height: int) -> int:
    """Side of the box in which half-planes of so many rows lie, but for their corners."""
    return height * 4 // 3


def axis_frames(axis_zyx: Float64Array) -> Float64Array:
    """A right-angled frame for each axis.

    Parameters
    ----------
    axis_zyx
        (n, 3) vectors of any length but 0.

    Returns
    -------
    (n, 3, 3) rows of unit vectors, zyx: the axis, the direction across it that is nearest to the beam (of an
    axis along the beam, to y), and the one a quarter turn on.
    """
    axis = axis_zyx / np.linalg.norm(axis_zyx, axis=1, keepdims=True)
    towards = np.where(np.abs(axis[:, :1]) < 0.9, [[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]])
    across = towards - (axis * towards).sum(axis=1, keepdims=True) * axis
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    return np.stack([axis, across, np.cross(axis, across)], axis=1)


def rotate_frames(frames: Float64Array, angle: Float64Array) -> Float64Array:
    """Frames turned about their axes.

    Parameters
    ----------
    frames
        (n, 3, 3) as of `axis_frames`.
    angle
        (n,) radians, from the second row to the third.

    Returns
    -------
    (n, 3, 3)
    """
    along, across, quarter = frames.transpose(1, 0, 2)
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    return np.stack([along, cos * across + sin * quarter, cos * quarter - sin * across], axis=1)


def correct_axis(frames: Float64Array, lean: Float64Array) -> Float64Array:
    """The axes that lean from those of frames.

    Parameters
    ----------
    frames
        (n, 3, 3) as of `axis_frames`.
    lean
        (n, 2) by how much, in radians, towards a frame's second row and towards its third.

    Returns
    -------
    (n, 3) unit vectors.
    """
    angle = np.linalg.norm(lean, axis=1, keepdims=True)
    towards = np.einsum("nij,ni->nj", frames[:, 1:], lean) / np.maximum(angle, np.finfo(np.float64).tiny)
    axes: Float64Array = np.cos(angle) * frames[:, 0] + np.sin(angle) * towards
    return axes


def axis_correction(axis_zyx: Float64Array, frames: Float64Array) -> Float64Array:
    """How axes lean from those of frames, whose rows need not be of length 1: the inverse of `correct_axis`.

    Parameters
    ----------
    axis_zyx
        (n, 3) vectors of any length but 0.
    frames
        (n, 3, 3) rows that are square to each other, as of `axis_frames` but for their lengths.

    Returns
    -------
    (n, 2) radians.
    """
    # Components, each in the unit of its row.
    along, sideways = np.split(
        np.einsum("nij,nj->ni", frames, axis_zyx) / (frames**2).sum(axis=2), [1], axis=1
    )
    aside = np.linalg.norm(sideways, axis=1, keepdims=True)
    lean: Float64Array = np.arctan2(aside, along) * sideways / np.maximum(aside, np.finfo(np.float64).tiny)
    return lean


def cylindrical_sections(
    boxes: Tensor, centre_zyx: Float64Array, frames: Float64Array, height: int
) -> Tensor:
    """What lies about axes, on half-planes that end there.

    Parameters
    ----------
    boxes
        (n, side, side, side) float32.
    centre_zyx
        (n, 3) voxels from a box's voxel side // 2 to the point about which to look.
    frames
        (n, 3, 3) as of `axis_frames`; the lengths of the rows are those of a step.
    height
        Rows of a half-plane.

    Returns
    -------
    (n, AZIMUTHS, height, height // 2) float32. Rows go along the axis, the point is in row
    floor(height * INNER_PART); columns go away from the axis, the first half a step from it; half-planes go
    from the frame's second row to its third. Linear between voxels, 0 beyond a box.
    """
    along = np.arange(height) - int(height * INNER_PART)
    away = np.arange(height // 2) + 0.5
    angle = 2 * np.pi * np.arange(AZIMUTHS) / AZIMUTHS
    cylinder = np.empty((AZIMUTHS, height, height // 2, 3))
    cylinder[..., 0] = along[:, None]
    cylinder[..., 1] = np.cos(angle)[:, None, None] * away
    cylinder[..., 2] = np.sin(angle)[:, None, None] * away
    side = boxes.shape[-1]
    points = cylinder.reshape(-1, 3) @ frames + (centre_zyx + side // 2)[:, None]
    # grid_sample with align_corners=False: -1 and 1 are the outer edges of the first and last voxel; xyz.
    places = ((2 * points + 1) / side - 1)[..., ::-1].astype(np.float32)
    grid = torch.from_numpy(places.reshape(len(boxes), AZIMUTHS * height, height // 2, 1, 3))
    values = grid_sample(
        boxes[:, None], grid.to(boxes.device), mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return values.reshape(len(boxes), AZIMUTHS, height, height // 2)


def cut_boxes(
    grid: PreparedTomogram, middle_zyx: npt.NDArray[np.int64], side: int
) -> Iterator[tuple[npt.NDArray[np.int64], FloatArray]]:
    """Boxes about voxels of a prepared tomogram, a few at a time, every slice prepared once.

    Parameters
    ----------
    grid
        The tomogram, prepared.
    middle_zyx
        (n, 3) voxels; a box covers c - side // 2 ... c - side // 2 + side - 1 along each axis. Beyond the
        faces of the tomogram it is 0, which is the mean of a prepared one: a mirror image would be alike
        about an axis near a face, as a T3SS is.
    side
        Of the boxes, in voxels.

    Yields
    ------
    (m,) indices into `middle_zyx`, and their (m, side, side, side) float32 boxes.
    """
    held: dict[int, FloatArray] = {}
    order = np.argsort(middle_zyx[:, 0], kind="stable")
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        boxes = np.zeros((len(chosen), side, side, side), np.float32)
        for box, middle in zip(boxes, middle_zyx[chosen], strict=True):
            low = middle - side // 2
            (z0, y0, x0), (z1, y1, x1) = np.maximum(low, 0), np.minimum(low + side, grid.shape)
            # Candidates come by ascending slices: no more is held than the slices of one box.
            held = {z: section for z, section in held.items() if z0 <= z < z1}
            within = box[:, y0 - low[1] : y1 - low[1], x0 - low[2] : x1 - low[2]]
            for z in range(z0, z1):
                if z not in held:
                    held[z] = grid.slab(z, z + 1)[0]
                within[z - low[0]] = held[z][y0:y1, x0:x1]
        yield chosen, boxes
