"""A second look at each candidate: a 3D network says whether it is a T3SS, and where its centre is.

The classifier sees slices; most of what it takes for a T3SS falsely is told by looking at the whole. A few
candidates a tomogram cost next to nothing against the millions of windows before them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from t3ssfast.models import LoadedModel
from t3ssfast.normalise import PreparedTomogram

__all__ = ["cut_boxes", "verify"]

FloatArray = npt.NDArray[np.float32]

BATCH = 16
# A centre is moved by at most so many voxels along each axis: within what the training shows.
MAX_OFFSET = 5.0
# After the first look the box is centred anew: the network is surer, and more exact, about what is in the
# middle.
LOOKS = 2


def verify(
    grid: PreparedTomogram, centre_zyx: npt.ArrayLike, verifier: LoadedModel
) -> tuple[FloatArray, FloatArray]:
    """Look at candidates as a whole.

    Parameters
    ----------
    grid
        The tomogram on the verifier's grid.
    centre_zyx
        (n, 3) candidates, in voxels of that grid.
    verifier
        Of the kind "verifier".

    Returns
    -------
    centre_zyx
        (n, 3) float32, in the order given: where the network sees the centre, inside the grid.
    score
        (n,) float32 probability that there is a T3SS.
    """
    centre = np.asarray(centre_zyx, np.float64).reshape(-1, 3)
    box = verifier.metadata.window_px
    assert box is not None, "load_model gives every verifier a box"
    score = np.zeros(len(centre), np.float32)
    last = np.array(grid.shape) - 1
    for _ in range(LOOKS):
        middle = np.floor(centre + 0.5).astype(np.int64)
        for chosen, boxes in cut_boxes(grid, middle, box):
            with torch.inference_mode():
                given = torch.from_numpy(boxes)[:, None].to(verifier.device)
                answer = verifier.module(given).float().cpu().numpy()
            score[chosen] = 1 / (1 + np.exp(-answer[:, 0].astype(np.float64)))
            moved = middle[chosen] + np.clip(answer[:, 1:], -MAX_OFFSET, MAX_OFFSET)
            centre[chosen] = np.clip(moved, 0, last)
    return centre.astype(np.float32), score


def cut_boxes(
    grid: PreparedTomogram, middle_zyx: npt.NDArray[np.int64], box: int | tuple[int, int, int]
) -> Iterator[tuple[npt.NDArray[np.int64], FloatArray]]:
    """Boxes about voxels of a prepared tomogram, a few at a time, every slice prepared once.

    Parameters
    ----------
    grid
        The tomogram, prepared.
    middle_zyx
        (n, 3) voxels; a box of side n covers c - n//2 ... c - n//2 + n - 1 along each axis. Beyond the faces
        of the tomogram lies its mirror image.
    box
        Side of the boxes in voxels, or one for each axis.

    Yields
    ------
    (m,) indices into `middle_zyx`, and their (m, *box) float32 boxes.
    """
    sides = (box, box, box) if isinstance(box, int) else box
    held: dict[int, FloatArray] = {}
    order = np.argsort(middle_zyx[:, 0], kind="stable")
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        boxes = np.empty((len(chosen), *sides), np.float32)
        places = [
            [
                _mirrored(int(middle) - side // 2 + np.arange(side), length)
                for middle, side, length in zip(middle_zyx[k], sides, grid.shape, strict=True)
            ]
            for k in chosen
        ]
        # Candidates come by ascending slices: what lies below this batch is not needed again.
        lowest = min(int(z.min()) for z, _, _ in places)
        held = {z: section for z, section in held.items() if z >= lowest}
        for n, (z, y, x) in enumerate(places):
            for k, index in enumerate(z.tolist()):
                if index not in held:
                    held[index] = grid.slab(index, index + 1)[0]
                boxes[n, k] = held[index][np.ix_(y, x)]
        yield chosen, boxes


def _mirrored(index: npt.NDArray[np.int64], length: int) -> npt.NDArray[np.int64]:
    """Indices beyond an axis as those of its mirror image, without the edge twice."""
    if length == 1:
        return np.zeros_like(index)
    folded: npt.NDArray[np.int64] = np.mod(index, 2 * (length - 1))
    mirrored: npt.NDArray[np.int64] = np.minimum(folded, 2 * (length - 1) - folded)
    return mirrored
