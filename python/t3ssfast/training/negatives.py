"""Negative windows of the classifier's training: random ones, ones chosen by statistics, and mined ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.linalg import solve_triangular
from scipy.spatial import cKDTree

from t3ssfast.detection.classify_slab import classify_slab
from t3ssfast.detection.preselect import DEFAULT_STATISTICS
from t3ssfast.detection.search_region import SearchRegion
from t3ssfast.kernels.padding import pad_for_windows
from t3ssfast.kernels.window_statistics import window_statistics
from t3ssfast.models import LoadedModel
from t3ssfast.training.data import TrainingTomogram
from t3ssfast.training.options import ClassifierOptions
from t3ssfast.training.windows import Positions, voxels_around

__all__ = ["ParticleStatistics", "draw_negatives", "is_negative", "mine_negatives", "statistics_at"]

# Minimum distance between two mined windows of a slice.
MINED_DISTANCE_NM = 7.0
# Slices of each tomogram from which negatives are drawn.
NEGATIVE_SLICES = 24
# Windows whose statistics are computed, for each negative that is drawn.
MEASURED_PER_NEGATIVE = 20
# Sides of the windows that statistics are computed over, relative to the classifier's window: the particle
# with its surroundings, and its base alone.
RELATIVE_SIZES = (1.0, 0.5)
# Fractions of the measured windows that count as near the particles, and as far from them.
NEAR_FRACTION, FAR_FRACTION = 0.1, 0.05
# Weight of a diagonal covariance mixed into the measured one: ten picks give fewer windows than a full
# covariance of 14 statistics needs.
SHRINKAGE = 0.1


@dataclass(frozen=True)
class ParticleStatistics:
    """Distribution of the statistics of windows on particles.

    `centre` (S,) and `scale` (S,) are medians and robust standard deviations; `root` (S, S) is the Cholesky
    factor of the covariance in these units.
    """

    sizes: tuple[int, ...]
    centre: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]
    root: npt.NDArray[np.float64]

    @classmethod
    def measure(
        cls, tomograms: Sequence[TrainingTomogram], options: ClassifierOptions
    ) -> ParticleStatistics | None:
        """Measure the windows on all T3SS, in the slices around each; None where none is finite."""
        sizes = tuple(max(3, round(factor * options.window_px)) for factor in RELATIVE_SIZES)
        reach = round(options.jitter_z_nm * 10.0 / options.voxel_size_angstrom)
        parts = [statistics_at(t, voxels_around(t, t.targets_zyx, reach), sizes) for t in tomograms]
        values = np.concatenate(parts, axis=1).astype(np.float64)
        values = values[:, np.isfinite(values).all(axis=0)]
        if values.shape[1] == 0:
            return None
        centre = np.median(values, axis=1)
        low, high = np.percentile(values, [25, 75], axis=1)
        scale = np.maximum((high - low) / 1.349, 1e-6)
        # Kurtosis has heavy tails; outliers would dominate the covariance.
        units = np.clip((values - centre[:, None]) / scale[:, None], -4, 4)
        covariance = units @ units.T / units.shape[1]
        mixed = (1 - SHRINKAGE) * covariance + SHRINKAGE * np.diag(np.diag(covariance) + 1e-3)
        return cls(sizes, centre, scale, np.linalg.cholesky(mixed))

    def distance(self, statistics: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the Mahalanobis distance of (S, n) statistics from the particles; not finite: infinity."""
        units = (statistics - self.centre[:, None]) / self.scale[:, None]
        finite = np.isfinite(units).all(axis=0)
        distance = np.full(units.shape[1], np.inf)
        whitened = solve_triangular(self.root, units[:, finite], lower=True)
        distance[finite] = np.linalg.norm(whitened, axis=0)
        return distance


def statistics_at(
    tomogram: TrainingTomogram, positions: Positions, sizes: Sequence[int]
) -> npt.NDArray[np.float32]:
    """Return the statistics (sizes * 7, n) of the windows of each size centred at (n, 3) voxels."""
    count = len(DEFAULT_STATISTICS)
    values = np.empty((len(sizes) * count, len(positions)), np.float32)
    for z in np.unique(positions[:, 0]):
        here = np.flatnonzero(positions[:, 0] == z)
        slab = tomogram.prepared.slab(int(z), int(z) + 1)
        wanted = np.zeros(slab.shape, bool)
        wanted[0, positions[here, 1], positions[here, 2]] = True
        # A window is computed once, however often its position is listed.
        place = np.cumsum(wanted).reshape(slab.shape[1:])[positions[here, 1], positions[here, 2]] - 1
        for k, size in enumerate(sizes):
            image = pad_for_windows(slab, size)
            found = np.asarray(window_statistics(image, size, DEFAULT_STATISTICS, mask=wanted))
            values[k * count : (k + 1) * count, here] = found[:, place]
    return values


def draw_negatives(
    tomogram: TrainingTomogram,
    rng: np.random.Generator,
    options: ClassifierOptions,
    particles: ParticleStatistics | None,
) -> Positions:
    """Draw negatives of one tomogram, most of them near the membrane, the others anywhere.

    With the statistics of the particles, those near the membrane are drawn from three strata: windows whose
    statistics are like a particle's, windows whose statistics are least like them, and all.
    """
    slices = _random_slices(tomogram, NEGATIVE_SLICES, rng)
    regions = _search_regions(tomogram, slices, options, enclosed=False)
    near = np.concatenate([_in_slice(z, region) for z, region in regions])
    wanted = options.negatives_per_tomogram
    elsewhere = round(options.elsewhere_share * wanted) if len(near) else wanted
    anywhere = [rng.choice(slices, elsewhere)]
    anywhere += [rng.integers(0, n, elsewhere) for n in tomogram.prepared.shape[1:]]
    if len(near):
        if particles is None:
            near = near[rng.integers(len(near), size=wanted - elsewhere)]
        else:
            near = _draw_strata(tomogram, near, wanted - elsewhere, rng, options, particles)
    positions = np.concatenate([near, np.column_stack(anywhere)]).astype(np.int64)
    return positions[is_negative(tomogram, positions, options)]


def _draw_strata(
    tomogram: TrainingTomogram,
    positions: Positions,
    wanted: int,
    rng: np.random.Generator,
    options: ClassifierOptions,
    particles: ParticleStatistics,
) -> Positions:
    """Draw windows by the distance of their statistics from those of the particles."""
    count = min(len(positions), MEASURED_PER_NEGATIVE * wanted)
    measured = positions[rng.choice(len(positions), count, replace=False)]
    measured = measured[is_negative(tomogram, measured, options)]
    if len(measured) == 0:
        return measured
    order = np.argsort(particles.distance(statistics_at(tomogram, measured, particles.sizes)), kind="stable")
    like, unlike = round(options.like_share * wanted), round(options.unlike_share * wanted)
    strata = (
        (order[: max(1, round(NEAR_FRACTION * len(order)))], like),
        (order[-max(1, round(FAR_FRACTION * len(order))) :], unlike),
        (order, max(0, wanted - like - unlike)),
    )
    drawn = [stratum[rng.integers(len(stratum), size=n)] for stratum, n in strata]
    chosen: Positions = measured[np.concatenate(drawn)]
    return chosen


def is_negative(
    tomogram: TrainingTomogram, positions: Positions, options: ClassifierOptions
) -> npt.NDArray[np.bool_]:
    """Return which positions are far enough from every T3SS to be negatives."""
    # Distances from no T3SS are infinite.
    distance, _ = cKDTree(tomogram.targets_zyx).query(positions)
    return np.asarray(distance > options.negative_distance_nm * 10.0 / options.voxel_size_angstrom)


def _search_regions(
    tomogram: TrainingTomogram, slices: list[int], options: ClassifierOptions, *, enclosed: bool
) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """Yield slices and their search regions; without a membrane, the whole slice."""
    prepared, distance_nm = tomogram.prepared, options.search_distance_nm
    if tomogram.membrane is None:
        yield from ((z, np.ones(prepared.shape[1:], np.uint8)) for z in slices)
    else:
        search = SearchRegion(tomogram.membrane, prepared.voxel_size_angstrom, distance_nm, enclosed=enclosed)
        yield from ((z, search.slab(z, z + 1)[0]) for z in slices)


def _random_slices(tomogram: TrainingTomogram, count: int, rng: np.random.Generator) -> list[int]:
    """Draw different slices, sorted."""
    z = np.arange(tomogram.z0, tomogram.z1)
    return sorted(rng.choice(z, min(count, len(z)), replace=False).tolist())


def _in_slice(z: int, mask: npt.NDArray[Any]) -> Positions:
    """Return the voxels of a slice where a mask is non-zero."""
    yx = np.argwhere(mask)
    return np.column_stack([np.full(len(yx), z), yx]).astype(np.int64)


def mine_negatives(
    model: LoadedModel,
    tomograms: Sequence[TrainingTomogram],
    options: ClassifierOptions,
    rng: np.random.Generator,
) -> list[Positions]:
    """Return each tomogram's false positives with the highest scores, highest first."""
    found = []
    side = 2 * round(MINED_DISTANCE_NM * 10.0 / options.voxel_size_angstrom) + 1
    for tomogram in tomograms:
        positions, scores = [np.zeros((0, 3), np.int64)], [np.zeros(0, np.float32)]
        slices = _random_slices(tomogram, options.mined_slices, rng)
        for z, region in _search_regions(tomogram, slices, options, enclosed=True):
            score = np.zeros(region.shape, np.float32)
            slab = tomogram.prepared.slab(z, z + 1)
            index, probability = classify_slab(slab, region[None], model, device=model.device)
            score.flat[index] = probability
            peaks = (score >= options.mined_score) & (score == ndimage.maximum_filter(score, side))
            voxels = _in_slice(z, peaks)
            negative = is_negative(tomogram, voxels, options)
            positions.append(voxels[negative])
            scores.append(score[peaks][negative])
        order = np.argsort(-np.concatenate(scores), kind="stable")[: options.mined_per_tomogram]
        found.append(np.concatenate(positions)[order])
    return found
