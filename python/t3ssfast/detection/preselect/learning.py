"""Learning a preselection from the picks of one tomogram or of several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from t3ssfast.candidates import Candidates
from t3ssfast.detection.config import DetectConfig
from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.detection.preselect.block_statistics import BLOCK_YX, BLOCK_Z, BlockStatistics
from t3ssfast.detection.preselect.model import DEFAULT_SIZES, PreselectModel, count_features, learn_model
from t3ssfast.detection.preselect.rule import DEFAULT_STATISTICS, PreselectRule, learn_rule
from t3ssfast.detection.search_region import SearchRegion, any_per_square
from t3ssfast.errors import InputError
from t3ssfast.kernels.padding import pad_for_windows
from t3ssfast.kernels.window_statistics import window_statistics
from t3ssfast.models import LoadedModel, load_model
from t3ssfast.tomogram import StrPath, Tomogram

__all__ = ["block_windows", "learn_preselection", "learn_rule_from_picks", "particle_windows", "search_grid"]

# Windows this close to a pick show the same particle: their scores stay above about half of its score.
PICK_RADIUS_Z_NM = 8.0
PICK_RADIUS_YX_NM = 3.0
# Sampled windows near the membrane that give the fraction of negatives that a rule keeps.
NEGATIVE_WINDOWS = 20_000
# Sampled blocks without a particle per tomogram.
NEGATIVE_BLOCKS = 1_500


def search_grid(
    tomogram: Tomogram,
    membrane: npt.NDArray[Any],
    classifier: LoadedModel,
    config: DetectConfig | None,
    contrast_sign: int = 1,
) -> tuple[PreparedTomogram, SearchRegion]:
    """Prepare a tomogram for a classifier, and its search region around a membrane mask."""
    prepared = PreparedTomogram.prepare(
        tomogram,
        voxel_size_angstrom=classifier.metadata.voxel_size_angstrom,
        normalisation=classifier.metadata.normalisation,
        contrast_sign=contrast_sign,
    )
    on_grid = prepared.mask_from_tomogram(membrane, 0, prepared.shape[0])
    return prepared, SearchRegion.of(on_grid, prepared.voxel_size_angstrom, config or DetectConfig())


def learn_preselection(
    tomograms: Sequence[Tomogram],
    membranes: Sequence[npt.NDArray[Any]],
    picks: Sequence[Candidates],
    *,
    classifier: StrPath | nn.Module | LoadedModel | None = None,
    config: DetectConfig | None = None,
    keep: float = 0.995,
) -> PreselectModel:
    """Learn a `PreselectModel` from the picks of several tomograms (protein dark).

    Parameters
    ----------
    tomograms, membranes, picks
        One mask of the tomogram's shape and one `Candidates` per tomogram; at least two tomograms with T3SS.
        Use masks from the segmenter, as in a detection.
    classifier
        Model (file) that defines grid and normalisation; None is the bundled one.
    config
        Options that define the search region.
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
    features, true, index = [], [], []
    for k, (tomogram, membrane, known) in enumerate(zip(tomograms, membranes, picks, strict=True)):
        prepared, search = search_grid(tomogram, membrane, model, config)
        centres = prepared.from_tomogram(known.centre_zyx[known.kind == "t3ss"])
        values, on_particle = block_windows(prepared, search, centres)
        features.append(values)
        true.append(on_particle)
        index.append(np.full(len(on_particle), k))
    return learn_model(
        np.concatenate(features, axis=1), np.concatenate(true), np.concatenate(index), keep=keep
    )


def block_windows(
    grid: PreparedTomogram,
    search: SearchRegion,
    centres_zyx: npt.NDArray[np.float64],
    *,
    sizes: tuple[int, ...] = DEFAULT_SIZES,
    statistics: tuple[str, ...] = DEFAULT_STATISTICS,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Compute the features of blocks near the membrane: all on particles, and an even sample of the others.

    Parameters
    ----------
    grid, search
        The tomogram on the classifier's grid, and the search region there.
    centres_zyx
        (n, 3) particles on that grid.
    sizes, statistics
        As for `BlockStatistics`.

    Returns
    -------
    (F, m) float32 features, and (m,) whether a block is on a particle.
    """
    blocks = BlockStatistics(grid, search, sizes=sizes, statistics=statistics)
    near = [blocks.region(k) for k in range(blocks.planes)]
    on_particle = [np.zeros_like(plane) for plane in near]
    for z, image in _near_particles(grid.shape, grid.voxel_size_angstrom, centres_zyx):
        on_particle[z // BLOCK_Z] |= any_per_square(image, BLOCK_YX)
    others = [np.flatnonzero(n & ~p) for n, p in zip(near, on_particle, strict=True)]
    spacing = max(1, sum(len(indices) for indices in others) // NEGATIVE_BLOCKS)
    features = [np.zeros((count_features(sizes, statistics), 0), np.float32)]
    true = [np.zeros(0, bool)]
    for k in range(blocks.planes):
        chosen = near[k] & on_particle[k]
        chosen.flat[others[k][k % spacing :: spacing]] = True
        if chosen.any():
            features.append(blocks.features(k, chosen))
            true.append(on_particle[k][chosen])
    return np.concatenate(features, axis=1), np.concatenate(true)


def particle_windows(tomogram: Tomogram, particles: Candidates) -> npt.NDArray[np.bool_]:
    """Return a (z, y, x) mask of the windows that show a particle: those centred close to it."""
    scale = particles.voxel_size_angstrom / tomogram.voxel_size_angstrom
    centres = (particles.centre_zyx.astype(np.float64) + 0.5) * scale - 0.5
    mask = np.zeros(tomogram.shape, bool)
    for z, image in _near_particles(tomogram.shape, tomogram.voxel_size_angstrom, centres):
        mask[z] = image
    return mask


def _near_particles(
    shape: tuple[int, int, int], voxel_size_angstrom: float, centres_zyx: npt.NDArray[np.float64]
) -> Iterator[tuple[int, npt.NDArray[np.bool_]]]:
    """Yield the slices with windows on particles, each with the (y, x) mask of their centres."""
    depth, height, width = shape
    radius = np.array([PICK_RADIUS_Z_NM, PICK_RADIUS_YX_NM, PICK_RADIUS_YX_NM]) * 10 / voxel_size_angstrom
    y, x = np.ogrid[:height, :width]
    for z in range(depth):
        near = np.zeros((height, width), bool)
        for centre in centres_zyx:
            along_z = ((z - centre[0]) / radius[0]) ** 2
            if along_z <= 1:
                in_plane = ((y - centre[1]) / radius[1]) ** 2 + ((x - centre[2]) / radius[2]) ** 2
                near |= in_plane <= 1 - along_z
        if near.any():
            yield z, near


def learn_rule_from_picks(
    prepared: PreparedTomogram,
    region: npt.NDArray[np.uint8],
    picks: Candidates,
    size: int,
    *,
    keep: float,
    margin: float,
) -> PreselectRule:
    """Learn a rule from the windows on picks, and measure it on a sample of the other windows of a region."""
    centres = prepared.from_tomogram(picks.centre_zyx[picks.kind == "t3ss"])
    near_picks = dict(_near_particles(prepared.shape, prepared.voxel_size_angstrom, centres))
    none = np.zeros((len(DEFAULT_STATISTICS), 0), np.float32)
    positive, negative = [none], [none]
    spacing = 1
    for z, allowed in enumerate(region != 0):
        near = near_picks.get(z, np.zeros_like(allowed))
        others = np.flatnonzero(allowed & ~near)
        spacing = max(spacing, len(others) * len(region) // NEGATIVE_WINDOWS)
        chosen = near.copy()
        chosen.flat[others[::spacing]] = True
        if chosen.any():
            image = pad_for_windows(prepared.slab(z, z + 1), size)
            values = np.asarray(window_statistics(image, size, DEFAULT_STATISTICS, mask=chosen[None]))
            positive.append(values[:, near[chosen]])
            negative.append(values[:, ~near[chosen]])
    positives = np.concatenate(positive, axis=1)
    positives = positives[:, np.isfinite(positives).all(axis=0)]
    if positives.shape[1] == 0:
        raise InputError(
            f"None of the {len(picks)} picks is a T3SS inside {prepared.tomogram.name}; give picks in voxels "
            "of this tomogram, 0-based."
        )
    negatives = np.concatenate(negative, axis=1)
    return learn_rule(positives, DEFAULT_STATISTICS, negatives, size=size, keep=keep, margin=margin)
