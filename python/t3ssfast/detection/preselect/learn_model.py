"""Learning a preselection model: a regularised logistic regression over the statistics of blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from t3ssfast.candidates import Candidates
from t3ssfast.detection.config import DetectConfig
from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.detection.preselect.block_statistics import BLOCK_YX, BLOCK_Z, BlockStatistics
from t3ssfast.detection.preselect.learn_rule import near_particles
from t3ssfast.detection.preselect.preselections import PreselectModel
from t3ssfast.detection.preselect.window_filter import search_grid
from t3ssfast.detection.search_region import SearchRegion, any_per_square
from t3ssfast.errors import InputError, T3Error
from t3ssfast.kernels.window_statistics import DEFAULT_STATISTICS
from t3ssfast.models import LoadedModel, load_model
from t3ssfast.tomogram import StrPath, Tomogram

__all__ = ["block_windows", "learn_model", "learn_preselection"]

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]

# In blocks of two voxels: from the classifier's window of 50 px down to the base alone.
DEFAULT_SIZES = (25, 18, 12, 6)
# Values of scikit-learn's C (small is strong) that are compared.
REGULARISATION = (1e-3, 1e-2, 1e-1, 1.0)
FOLDS = 6
MAX_ITERATIONS = 500
# Sampled blocks without a particle per tomogram.
NEGATIVE_BLOCKS = 1_500


def learn_preselection(
    tomograms: Sequence[Tomogram],
    membranes: Sequence[npt.NDArray[Any]],
    picks: Sequence[Candidates],
    *,
    classifier: StrPath | nn.Module | LoadedModel | None = None,
    contrast_sign: int = 1,
    config: DetectConfig | None = None,
    keep: float = 0.995,
) -> PreselectModel:
    """Learn a `PreselectModel` from the picks of several tomograms.

    Parameters
    ----------
    tomograms, membranes, picks
        One mask of the tomogram's shape, from the segmenter, and one `Candidates` per tomogram; at least two
        tomograms with T3SS.
    classifier, config
        What defines grid and normalisation (None: the bundled classifier), and the search region.
    contrast_sign
        +1 where protein is dark, -1 where it is bright.
    keep
        Fraction of the windows on particles to keep, in held-out tomograms.

    Raises
    ------
    InputError
        The numbers of tomograms, masks and picks differ, or too few tomograms have T3SS.
    T3Error
        scikit-learn is not installed.
    """
    if not len(tomograms) == len(membranes) == len(picks):
        raise InputError(
            f"There are {len(membranes)} membranes and {len(picks)} picks for {len(tomograms)} tomograms; "
            "give one of each per tomogram."
        )
    model = load_model(classifier, model_kind="classifier")
    parts = []
    for k, (tomogram, membrane, known) in enumerate(zip(tomograms, membranes, picks, strict=True)):
        grid, search = search_grid(tomogram, membrane, model, config, contrast_sign)
        centres = grid.from_tomogram(known.centre_zyx[known.kind == "t3ss"])
        values, on_particle = block_windows(grid, search, centres)
        parts.append((values, on_particle, np.full(len(on_particle), k)))
    features, true, index = (np.concatenate(part, axis=-1) for part in zip(*parts, strict=True))
    return learn_model(features, true, index, keep=keep)


def block_windows(
    grid: PreparedTomogram, search: SearchRegion, centres_zyx: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Return (F, m) features of blocks in a search region, and (m,) whether they are on one of n particles.

    The blocks are all those on the particles, and an even sample of the others.
    """
    blocks = BlockStatistics(grid, search, DEFAULT_SIZES, DEFAULT_STATISTICS)
    near = [blocks.region(k) for k in range(blocks.planes)]
    mask = near_particles(grid.shape, grid.voxel_size_angstrom, centres_zyx)
    on_particle = [any_per_square(mask[z : z + BLOCK_Z], BLOCK_YX) for z in range(0, len(mask), BLOCK_Z)]
    others = [np.flatnonzero(n & ~p) for n, p in zip(near, on_particle, strict=True)]
    spacing = max(1, sum(len(indices) for indices in others) // NEGATIVE_BLOCKS)
    features = [np.zeros((len(DEFAULT_SIZES) * (len(DEFAULT_STATISTICS) + 1), 0), np.float32)]
    true = [np.zeros(0, bool)]
    for k in range(blocks.planes):
        chosen = near[k] & on_particle[k]
        chosen.flat[others[k][k % spacing :: spacing]] = True
        if chosen.any():
            features.append(blocks.features(k, chosen))
            true.append(on_particle[k][chosen])
    return np.concatenate(features, axis=1), np.concatenate(true)


def learn_model(
    features: npt.ArrayLike,
    true: npt.ArrayLike,
    tomogram: npt.ArrayLike,
    *,
    sizes: Sequence[int] = DEFAULT_SIZES,
    statistics: Sequence[str] = DEFAULT_STATISTICS,
    keep: float = 0.99,
) -> PreselectModel:
    """Learn from windows of several tomograms which of them to keep.

    Regularisation and threshold are chosen by cross-validation over tomograms: those that keep the fewest
    other windows along with a fraction `keep` of the windows on particles. `features` are (F, n), those of
    `BlockStatistics`; `true` and `tomogram` are (n,): whether a window is on a particle, and its tomogram.
    """
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise T3Error(
            "Learning a preselection model needs scikit-learn; install it with pip install 't3ssfast[train]'."
        ) from error
    x, y, group = np.asarray(features, np.float64), np.asarray(true, bool), np.asarray(tomogram)
    expected = (len(sizes) * (len(statistics) + 1), len(y))
    if x.shape != expected or len(group) != len(y):
        raise InputError(
            f"The features have shape {x.shape}, with {len(y)} answers and {len(group)} tomograms; for these "
            f"sizes and statistics give (features, windows) = {expected}."
        )
    if not 0 < keep < 1:
        raise InputError(f"keep is {keep}; give a fraction between 0 and 1, such as 0.99.")
    finite = np.isfinite(x).all(axis=0)
    columns, y, group = x[:, finite].T, y[finite], group[finite]
    both = len(np.intersect1d(group[y], group[~y]))
    if both < 2:
        raise InputError(f"{both} tomograms have windows with and without particles; give at least two such.")
    weight = _balanced_weights(y, group)

    def fit(chosen: BoolArray, strength: float) -> FloatArray:
        regression = LogisticRegression(C=strength, max_iter=MAX_ITERATIONS)
        regression.fit(columns[chosen], y[chosen], sample_weight=weight[chosen])
        return np.asarray(regression.coef_[0])

    _, number = np.unique(group, return_inverse=True)
    fold = number % min(FOLDS, number.max() + 1)
    results = []
    for strength in REGULARISATION:
        held_out = np.zeros(len(y))
        for k in range(fold.max() + 1):
            inside = fold == k
            # Nothing can be learned where the other folds hold only one class.
            if len(set(y[~inside])) == 2:
                held_out[inside] = columns[inside] @ fit(~inside, strength)
        threshold = float(np.quantile(held_out[y], 1 - keep, method="lower"))
        kept = float(np.average(held_out[~y] >= threshold, weights=weight[~y]))
        results.append((kept, threshold, strength))
    kept, threshold, strength = min(results)
    return PreselectModel(
        sizes=tuple(sizes),
        statistics=tuple(statistics),
        weight=tuple(fit(np.ones(len(y), bool), strength).tolist()),
        threshold=threshold,
        metrics={
            "tomograms": int(number.max() + 1),
            "positives": int(y.sum()),
            "negatives": int((~y).sum()),
            "positives_kept": keep,
            "negatives_kept": kept,
            "strength": strength,
        },
    )


def _balanced_weights(y: BoolArray, group: npt.NDArray[Any]) -> FloatArray:
    """Return weights with which both classes count the same, and every tomogram within a class."""
    weight = np.zeros(len(y))
    for positive in (True, False):
        chosen = y == positive
        tomograms, index, count = np.unique(group[chosen], return_inverse=True, return_counts=True)
        weight[chosen] = 1 / (count[index] * len(tomograms))
    return np.asarray(weight * (len(y) / weight.sum()))
