"""A second look at each candidate: a 3D network says how sure it is of a T3SS, seeing the whole of it.

The classifier sees slices; some of what it takes for a T3SS falsely is told by looking at the whole. A few
candidates a tomogram cost next to nothing against the millions of windows before them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import expit, logit

from t3ssfast.models import LoadedModel
from t3ssfast.normalise import PreparedTomogram

__all__ = ["VERIFIER_PART", "cut_boxes", "verify"]

FloatArray = npt.NDArray[np.float32]

BATCH = 16
# Probabilities this close to 0 and 1 are told apart no further; it bounds their logarithms.
EDGE = 1e-4
# The verifier's part of the log-odds. Its answers lie farther from even odds than the classifier's
# averages of many windows; a logistic regression of both on the candidates of 24 tomograms gives it 0.23, and
# from 0.15 to 0.3 the average precision hardly changes.
VERIFIER_PART = 0.25


def verify(
    grid: PreparedTomogram,
    centre_zyx: npt.ArrayLike,
    score: npt.NDArray[np.float32],
    verifier: LoadedModel,
) -> FloatArray:
    """Scores of candidates that a classifier and a verifier agree on.

    The two have learned from different things, windows and boxes: a weighted mean of their log-odds ranks
    better than either. (The verifier is also taught where the centre is, which is not used: the peak of the
    classifier's scores is nearer to it.)

    Parameters
    ----------
    grid
        The tomogram on the verifier's grid.
    centre_zyx
        (n, 3) candidates, in voxels of that grid.
    score
        (n,) what the classifier gave them, as a probability.
    verifier
        Of the kind "verifier".

    Returns
    -------
    (n,) float32 in [0, 1].
    """
    middle = np.floor(np.asarray(centre_zyx, np.float64).reshape(-1, 3) + 0.5).astype(np.int64)
    box = verifier.metadata.window_px
    assert box is not None, "load_model gives every verifier a box"
    odds = logit(np.clip(score.astype(np.float64), EDGE, 1 - EDGE))
    for chosen, boxes in cut_boxes(grid, middle, box):
        with torch.inference_mode():
            answer = verifier.module(torch.from_numpy(boxes)[:, None].to(verifier.device))
        second = answer[:, 0].detach().double().cpu().numpy()
        odds[chosen] = (1 - VERIFIER_PART) * odds[chosen] + VERIFIER_PART * second
    agreed: FloatArray = expit(odds).astype(np.float32)
    return agreed


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
        for n, (z, y, x) in enumerate(places):
            # Candidates come by ascending slices: no more is held than the slices of one box.
            held = {k: section for k, section in held.items() if z.min() <= k <= z.max()}
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
