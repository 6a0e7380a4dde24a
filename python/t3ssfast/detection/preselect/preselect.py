"""Preselection of one tomogram by itself: learn from its picks, or apply what a classifier carries."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from t3ssfast.candidates import Candidates
from t3ssfast.detection.config import DetectConfig
from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.detection.preselect.blocks import BLOCK_Z, BlockStatistics, in_blocks
from t3ssfast.detection.preselect.model import DEFAULT_SIZES, PreselectModel, learn_model
from t3ssfast.detection.preselect.rule import DEFAULT_STATISTICS, PreselectRule, learn_rule
from t3ssfast.detection.preselect.window_filter import Preselection, WindowFilter, read_preselection
from t3ssfast.detection.search_region import SearchRegion
from t3ssfast.errors import InputError, ModelError
from t3ssfast.kernels.padding import pad_for_windows
from t3ssfast.kernels.window_statistics import window_statistics
from t3ssfast.models import LoadedModel, load_model
from t3ssfast.tomogram import Tomogram

__all__ = ["block_windows", "learn_preselection", "particle_windows", "preselect"]

# Windows this close to a pick show the same particle: about what separates its score from half of it.
PICK_REACH_Z_NM = 8.0
PICK_REACH_NM = 3.0
# So many windows of the membrane, evenly spread, stand for all of them in a rule's figures.
NEGATIVE_WINDOWS = 20_000
# Of a tomogram that a model is learned from, so many blocks without a particle.
NEGATIVE_BLOCKS = 1_500
# So many slices are prepared and looked at together; the answer does not depend on it.
SLAB_SLICES = 16


def preselect(
    tomogram: Tomogram,
    membrane: npt.NDArray[Any],
    picks: Candidates | None = None,
    *,
    classifier: str | os.PathLike[str] | nn.Module | LoadedModel | None = None,
    contrast_sign: int = 1,
    config: DetectConfig | None = None,
    keep: float = 0.995,
    margin: float = 0.25,
) -> tuple[npt.NDArray[np.uint8], Preselection]:
    """Say which windows near the membrane are worth the classifier, and by which rule.

    Parameters
    ----------
    tomogram
        To look at.
    membrane
        (z, y, x) mask of its shape.
    picks
        T3SS of this tomogram, to learn a `PreselectRule` from; None applies what the classifier carries.
    classifier
        Model (file) whose grid, window and normalisation count; None is the bundled one.
    contrast_sign
        +1 where protein is dark, -1 where it is bright.
    config
        Of it, what says where to search counts.
    keep, margin
        As in `learn_rule`.

    Returns
    -------
    mask
        (z, y, x) uint8 of the tomogram's shape: centres of windows that pass.
    rule
        What they pass: a rule, a model or a coarse look.

    Raises
    ------
    InputError
        If the mask has another shape or is empty, or no pick has a whole window about it.
    ModelError
        If there are no picks and the classifier carries no rule.
    """
    config = DetectConfig() if config is None else config
    model = load_model(classifier, model_kind="classifier")
    if not np.any(membrane):
        raise InputError("The membrane mask is empty; give one with the membranes set to 1.")
    prepared = PreparedTomogram.prepare(
        tomogram,
        voxel_size_angstrom=model.metadata.voxel_size_angstrom,
        normalisation=model.metadata.normalisation,
        contrast_sign=contrast_sign,
    )
    depth = prepared.shape[0]
    rule: Preselection | None
    on_grid = prepared.mask_from_tomogram(membrane, 0, depth)
    search = SearchRegion.of(on_grid, prepared.voxel_size_angstrom, config)
    region = search.slab(0, depth)
    if picks is not None:
        size = model.metadata.window_px or 50
        rule = _learn_from_picks(prepared, region, picks, size, keep=keep, margin=margin)
    else:
        rule = read_preselection(model.metadata.preselect)
    if rule is None:
        raise ModelError(f"{model.path} carries no preselection rule; give picks to learn one from.")
    gate = WindowFilter(rule, prepared, search, model)
    for z0 in range(0, depth, SLAB_SLICES):
        z1 = min(depth, z0 + SLAB_SLICES)
        if region[z0:z1].any():
            region[z0:z1] = gate.narrow(prepared.slab(z0, z1), region[z0:z1], z0)
    return prepared.mask_to_tomogram(region), rule


def learn_preselection(
    tomograms: Sequence[Tomogram],
    membranes: Sequence[npt.NDArray[Any]],
    picks: Sequence[Candidates],
    *,
    classifier: str | os.PathLike[str] | nn.Module | LoadedModel | None = None,
    config: DetectConfig | None = None,
    keep: float = 0.995,
) -> PreselectModel:
    """Learn a `PreselectModel` from the picks of several tomograms (protein dark).

    Parameters
    ----------
    tomograms, membranes, picks
        One mask, of the tomogram's shape, and one `Candidates` for each tomogram; at least two with T3SS.
        Masks as the segmenter finds them teach what a detection will meet.
    classifier
        Model (file) whose grid and normalisation count; None is the bundled one.
    config
        Of it, what says where to search counts.
    keep
        Share of the windows about picks that must pass, in tomograms left out.

    Raises
    ------
    InputError
        If the lists do not match, or too few tomograms have T3SS.
    T3Error
        If scikit-learn is not installed.
    """
    if not len(tomograms) == len(membranes) == len(picks):
        raise InputError(
            f"There are {len(membranes)} membranes and {len(picks)} picks for {len(tomograms)} tomograms; "
            f"give one of each for each."
        )
    config = DetectConfig() if config is None else config
    model = load_model(classifier, model_kind="classifier")
    features, true, index = [], [], []
    for k, (tomogram, membrane, known) in enumerate(zip(tomograms, membranes, picks, strict=True)):
        prepared = PreparedTomogram.prepare(
            tomogram,
            voxel_size_angstrom=model.metadata.voxel_size_angstrom,
            normalisation=model.metadata.normalisation,
        )
        on_grid = prepared.mask_from_tomogram(membrane, 0, prepared.shape[0])
        zyx = prepared.from_tomogram(known.centre_zyx[known.kind == "t3ss"])
        values, about = block_windows(
            prepared, SearchRegion.of(on_grid, prepared.voxel_size_angstrom, config), zyx
        )
        features.append(values)
        true.append(about)
        index.append(np.full(len(about), k))
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
    """Features of blocks near the membrane: all about particles, and an even sample of the others.

    Parameters
    ----------
    grid, search
        The tomogram on the classifier's grid, and the region about its membrane there.
    centres_zyx
        (n, 3) particles on that grid.
    sizes, statistics
        As for `BlockStatistics`.

    Returns
    -------
    features
        (F, m).
    true
        (m,) whether a block is about a particle.
    """
    blocks = BlockStatistics(grid, search, sizes=sizes, statistics=statistics)
    near = [blocks.region(k) for k in range(blocks.planes)]
    about = [np.zeros_like(plane) for plane in near]
    for z, plane in _near_particles(grid.shape, grid.voxel_size_angstrom, centres_zyx):
        about[z // BLOCK_Z] |= in_blocks(plane)
    spacing = max(1, sum(int((n & ~a).sum()) for n, a in zip(near, about, strict=True)) // NEGATIVE_BLOCKS)
    features, true = [], []
    for k, (here, particle) in enumerate(zip(near, about, strict=True)):
        others = np.flatnonzero(here & ~particle)
        wanted = here & particle
        wanted.flat[others[k % spacing :: spacing]] = True
        if wanted.any():
            features.append(blocks.features(k, wanted))
            true.append(particle[wanted])
    if not features:
        none = np.zeros((len(sizes) * (len(statistics) + 1), 0), np.float32)
        return none, np.zeros(0, bool)
    return np.concatenate(features, axis=1), np.concatenate(true)


def particle_windows(tomogram: Tomogram, particles: Candidates) -> npt.NDArray[np.bool_]:
    """(z, y, x) voxels so near the centre of a particle that a window there shows it."""
    scale = particles.voxel_size_angstrom / tomogram.voxel_size_angstrom
    centres = (particles.centre_zyx.astype(np.float64) + 0.5) * scale - 0.5
    about = np.zeros(tomogram.shape, bool)
    for z, near in _near_particles(tomogram.shape, tomogram.voxel_size_angstrom, centres):
        about[z] = near
    return about


def _near_particles(
    shape: tuple[int, int, int], voxel_size_angstrom: float, centres_zyx: npt.NDArray[np.float64]
) -> Iterator[tuple[int, npt.NDArray[np.bool_]]]:
    """Slices with windows about a particle, and which pixels of them are their centres."""
    depth, height, width = shape
    reach = np.array([PICK_REACH_Z_NM, PICK_REACH_NM, PICK_REACH_NM]) * 10 / voxel_size_angstrom
    grid_y, grid_x = np.ogrid[:height, :width]
    for z in range(depth):
        near = np.zeros((height, width), bool)
        for centre in centres_zyx:
            scaled = ((z - centre[0]) / reach[0]) ** 2
            if scaled <= 1:
                in_plane = ((grid_y - centre[1]) / reach[1]) ** 2 + ((grid_x - centre[2]) / reach[2]) ** 2
                near |= in_plane <= 1 - scaled
        if near.any():
            yield z, near


def _learn_from_picks(
    prepared: PreparedTomogram,
    region: npt.NDArray[np.uint8],
    picks: Candidates,
    size: int,
    *,
    keep: float,
    margin: float,
) -> PreselectRule:
    """The rule of the windows about picks, with its figures on the rest of the windows near the membrane."""
    zyx = prepared.from_tomogram(picks.centre_zyx[picks.kind == "t3ss"])
    about = dict(_near_particles(prepared.shape, prepared.voxel_size_angstrom, zyx))
    positive, negative = [], []
    depth, height, width = prepared.shape
    spacing = 1
    for z in range(depth):
        near = about.get(z, np.zeros((height, width), bool))[None]
        others = np.flatnonzero((region[z] != 0) & ~near[0])
        spacing = max(spacing, len(others) * depth // NEGATIVE_WINDOWS, 1)
        sample = np.zeros(near.size, bool)
        sample[others[::spacing]] = True
        wanted = sample.reshape(near.shape) | near
        if wanted.any():
            image = pad_for_windows(prepared.slab(z, z + 1), size)
            values = np.asarray(window_statistics(image, size, DEFAULT_STATISTICS, mask=wanted))
            positive.append(values[:, near[wanted]])
            negative.append(values[:, ~near[wanted]])
    positives = np.concatenate(positive, axis=1) if positive else np.zeros((len(DEFAULT_STATISTICS), 0))
    positives = positives[:, np.isfinite(positives).all(axis=0)]
    if positives.shape[1] == 0:
        raise InputError(
            f"None of the {len(picks)} picks is a T3SS inside {prepared.tomogram.name}; give picks in voxels "
            f"of this tomogram, 0-based."
        )
    negatives = np.concatenate(negative, axis=1)
    return learn_rule(positives, DEFAULT_STATISTICS, negatives, size=size, keep=keep, margin=margin)
