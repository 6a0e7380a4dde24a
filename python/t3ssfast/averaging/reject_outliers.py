"""Telling particles that are none of the structure by their scores."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["kept_by_score"]

Float64 = npt.NDArray[np.float64]

FEWEST = 12
# Two groups are told apart only where their means lie this many standard deviations apart ...
SEPARATION = 2.0
# ... and where two Gaussians explain the scores better than one by this much (Bayesian information).
EVIDENCE = 6.0
ROUNDS = 200


def kept_by_score(scores: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Which scores belong to the upper of two groups; all, where there are no two groups.

    Two Gaussians of one width are fitted by expectation maximisation. A score is dropped where the lower one
    explains it better. Where two groups explain the scores no better than one, or overlap, there is nothing
    to weed. (Widths of their own would let a narrow group of particles cast out its own tail.)

    Parameters
    ----------
    scores
        (n,).

    Returns
    -------
    (n,) bool.
    """
    values = np.asarray(scores, dtype=np.float64)
    everything = np.ones(len(values), dtype=bool)
    if len(values) < FEWEST or np.ptp(values) == 0:
        return everything
    mean, width, share = _two_gaussians(values)
    log = np.log(share) - 0.5 * ((values[:, None] - mean) / width) ** 2
    both = float(np.logaddexp(log[:, 0], log[:, 1]).sum()) - len(values) * np.log(width)
    one = -len(values) * (np.log(values.std()) + 0.5)
    # The second group costs two parameters more.
    gain = 2 * (both - one) - 2 * np.log(len(values))
    if gain < EVIDENCE or mean[1] - mean[0] < SEPARATION * width:
        return everything
    return np.asarray(log[:, 1] >= log[:, 0])


def _two_gaussians(values: Float64) -> tuple[Float64, float, Float64]:
    """Means (lower first), common width and shares of two Gaussians."""
    order = np.sort(values)
    least = 0.05 * float(values.std())
    cut = _best_cut(order)
    parts = order[:cut], order[cut:]
    mean = np.array([p.mean() for p in parts])
    share = np.array([len(p) / len(order) for p in parts])
    width = max(float(np.sqrt(sum(((p - p.mean()) ** 2).sum() for p in parts) / len(order))), least)
    for _ in range(ROUNDS):
        log = np.log(share) - 0.5 * ((order[:, None] - mean) / width) ** 2
        weight = np.exp(log - np.logaddexp(log[:, :1], log[:, 1:]))
        total = weight.sum(axis=0) + 1e-9
        before, mean = mean, (weight * order[:, None]).sum(axis=0) / total
        width = max(float(np.sqrt((weight * (order[:, None] - mean) ** 2).sum() / len(order))), least)
        share = total / total.sum()
        if np.abs(mean - before).max() < 1e-6 * least:
            break
    way = np.argsort(mean)
    return mean[way], width, share[way]


def _best_cut(ordered: Float64) -> int:
    """Where to cut sorted values so that the two parts are as narrow as can be (Otsu 1979)."""
    n = len(ordered)
    total = np.cumsum(ordered)
    count = np.arange(1, n)
    low, high = total[:-1] / count, (total[-1] - total[:-1]) / (n - count)
    return int(np.argmax(count * (n - count) * (high - low) ** 2)) + 1
