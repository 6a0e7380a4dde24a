"""Extraction of subtomograms: boxes around candidates, read from memory-mapped tomograms."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.ndimage

from t3ssfast.candidates import Candidates
from t3ssfast.detection.find_contrast import contrast_of_each
from t3ssfast.errors import ConfigError, InputError
from t3ssfast.io.volumes.opening import open_tomogram
from t3ssfast.tomogram import Tomogram, TomogramSource, check_voxel_size

__all__ = ["CONTRASTS", "BoxPositions", "box_positions", "box_voxels", "extract", "open_for_candidates"]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

EDGES = ("reflect", "mean", "drop", "error")
NORMALISATIONS = ("zscore", "mean", "none")
CONTRASTS = ("dark", "light", "auto")
MAX_BOX_VOXELS = 1024
VOXEL_SIZE_TOLERANCE = 1e-3  # Headers hold float32: voxel sizes are equal below this relative difference.
# Extra voxels around a box before cubic interpolation, whose prefilter reaches beyond the box.
INTERPOLATION_MARGIN_VOXELS = 4


@dataclass(frozen=True)
class BoxPositions:
    """Positions of m boxes in a tomogram."""

    # (m,) indices of the candidates that have a box: all, except those that edge="drop" excludes.
    index: Int64
    corner_zyx: Int64  # (m, 3) first voxel of each box in the tomogram.
    offset_zyx: Float64  # (m, 3) offset of the candidate from voxel box // 2, in voxels of the box.


def box_voxels(box: int | None, box_nm: float | None, voxel_size_angstrom: float) -> int:
    """Return the edge in voxels: `box`, or the even number nearest to `box_nm`; ConfigError if invalid."""
    if (box is None) == (box_nm is None):
        raise ConfigError("Give the box either in voxels (box, --box) or in nm (box_nm, --box-nm).")
    edge = box if box_nm is None else 2 * round(box_nm * 10 / voxel_size_angstrom / 2)
    if edge is None or isinstance(edge, bool) or edge != int(edge) or not 4 <= edge <= MAX_BOX_VOXELS:
        given = f"box {box}" if box_nm is None else f"box_nm {box_nm}"
        raise ConfigError(f"{given} gives {edge} voxels; give a box of 4 to {MAX_BOX_VOXELS} voxels.")
    return int(edge)


def open_for_candidates(tomogram: TomogramSource, candidates: Candidates) -> Tomogram:
    """Open the tomogram of candidates. An array takes its voxel size and name from them."""
    if isinstance(tomogram, (Tomogram, str, os.PathLike)):
        return open_tomogram(tomogram)
    return open_tomogram(tomogram, candidates.voxel_size_angstrom, candidates.tomogram_name)


def extract(
    tomogram: TomogramSource,
    candidates: Candidates,
    box: int | None = None,
    *,
    box_nm: float | None = None,
    voxel_size_angstrom: float | None = None,
    edge: str = "reflect",
    contrast: str = "dark",
    normalise: str = "zscore",
) -> Float32:
    """Extract a subtomogram around each candidate. Protein is bright in the subtomograms.

    The candidate lies in voxel ``box // 2`` along each axis. Boxes are cut at whole voxels, without
    interpolation, unless `voxel_size_angstrom` differs from the tomogram's. `box_positions` returns the
    remaining offset of up to half a voxel. Only the boxes are read from a memory-mapped tomogram.

    Parameters
    ----------
    tomogram
        `Tomogram`, path, or (z, y, x) array with the voxel size of `candidates`.
    candidates
        Their centres are scaled if their voxel size differs from the tomogram's.
    box, box_nm
        Edge of the boxes in voxels, or in nm (rounded to an even number of voxels).
    voxel_size_angstrom
        Voxel size of the boxes; None: the tomogram's. Boxes of another voxel size are interpolated (cubic,
        low-pass filtered first if the voxels get larger) and centred exactly.
    edge
        Treatment of boxes that extend beyond the tomogram: "reflect" (fill with the mirror image), "mean"
        (fill with the mean of the inside), "drop" (exclude the candidate), "error" (raise InputError).
    contrast
        Contrast of protein in the tomogram: "dark" (inverted here), "light", or "auto", which finds it as a
        detection does.
    normalise
        "zscore" (mean 0, standard deviation 1 in each box), "mean" (mean 0) or "none".

    Returns
    -------
    (n, box, box, box) float32, in the order of the candidates.

    Raises
    ------
    ConfigError
        If an option is invalid.
    InputError
        If a candidate lies outside the tomogram, or a box does and ``edge="error"``.
    """
    volume = open_for_candidates(tomogram, candidates)
    size = _box_voxel_size(volume, voxel_size_angstrom)
    n = box_voxels(box, box_nm, size)
    positions = box_positions(volume, candidates, n, voxel_size_angstrom=voxel_size_angstrom, edge=edge)
    _check_choice("contrast", contrast, CONTRASTS)
    _check_choice("normalise", normalise, NORMALISATIONS)
    (contrast,) = contrast_of_each([volume], contrast)
    boxes = np.empty((len(positions.index), n, n, n), np.float32)
    centres = _centres(volume, candidates)
    for row, index in enumerate(positions.index):
        if _is_one(size / volume.voxel_size_angstrom):
            cut = _cut(volume, positions.corner_zyx[row], n, edge)
        else:
            cut = _resample(volume, centres[index], n, size / volume.voxel_size_angstrom, edge)
        boxes[row] = _normalise(cut, normalise) * (-1 if contrast == "dark" else 1)
    return boxes


def box_positions(
    tomogram: Tomogram,
    candidates: Candidates,
    box: int,
    *,
    voxel_size_angstrom: float | None = None,
    edge: str = "reflect",
) -> BoxPositions:
    """Return the positions of the boxes that `extract` cuts; parameters and errors as `extract`."""
    _check_choice("edge", edge, EDGES)
    centre, shape = _centres(tomogram, candidates), np.array(tomogram.shape)
    outside = np.flatnonzero(((centre < -0.5) | (centre > shape - 0.5)).any(axis=1))
    if len(outside):
        position = ", ".join(f"{c:.1f}" for c in centre[outside[0]])
        raise InputError(
            f"Candidate {outside[0] + 1} at ({position}) zyx lies outside of {tomogram.name}, "
            f"{tuple(tomogram.shape)} voxels; check that the candidates belong to this tomogram and their "
            "voxel size."
        )
    scale = _box_voxel_size(tomogram, voxel_size_angstrom) / tomogram.voxel_size_angstrom
    nearest = np.floor(centre + 0.5).astype(np.int64)
    same = _is_one(scale)
    corner = nearest - box // 2 if same else np.floor(centre - scale * (box // 2)).astype(np.int64)
    extent = box if same else int(np.ceil(scale * (box - 1))) + 2
    beyond = ((corner < 0) | (corner + extent > shape)).any(axis=1)
    if edge == "error" and beyond.any():
        raise InputError(
            f"{int(beyond.sum())} of {len(centre)} boxes of {box} voxels extend beyond {tomogram.name}; give "
            "another edge policy (reflect, mean, drop) or a smaller box."
        )
    index = np.flatnonzero(~beyond) if edge == "drop" else np.arange(len(centre))
    offset = (centre - nearest)[index] if same else np.zeros((len(index), 3))
    return BoxPositions(index, corner[index], offset)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}; give one of {', '.join(choices)}.")


def _box_voxel_size(tomogram: Tomogram, requested: float | None) -> float:
    size = tomogram.voxel_size_angstrom if requested is None else requested
    return check_voxel_size(size, source="voxel_size_angstrom")


def _is_one(ratio_of_voxel_sizes: float) -> bool:
    return abs(ratio_of_voxel_sizes - 1) < VOXEL_SIZE_TOLERANCE


def _centres(tomogram: Tomogram, candidates: Candidates) -> Float64:
    """Return (n, 3) centres in voxels of the tomogram."""
    factor = candidates.voxel_size_angstrom / tomogram.voxel_size_angstrom
    return np.asarray(candidates.centre_zyx, dtype=np.float64) * (1.0 if _is_one(factor) else factor)


def _cut(tomogram: Tomogram, corner: Int64, extent: int, edge: str) -> Float32:
    """Cut a cube of voxels and fill the part beyond the tomogram."""
    shape = np.array(tomogram.shape)
    low, high = np.clip(corner, 0, shape), np.clip(corner + extent, 0, shape)
    inside = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    part = np.asarray(tomogram.data[inside], dtype=np.float32)
    if not np.isfinite(part).all():
        raise InputError(
            f"{tomogram.name} has voxels that are not finite near {tuple(map(int, corner))} zyx; repair it."
        )
    width = list(zip((low - corner).tolist(), (corner + extent - high).tolist(), strict=True))
    if not np.any(width):
        return part
    if edge == "mean":
        return np.pad(part, width, constant_values=float(part.mean(dtype=np.float64)))
    return np.pad(part, width, mode="symmetric")


def _resample(tomogram: Tomogram, centre: Float64, n: int, scale: float, edge: str) -> Float32:
    """Interpolate a cube of n voxels, `scale` times the tomogram's, with voxel n // 2 at `centre`."""
    start = centre - scale * (n // 2)
    corner = np.floor(start).astype(np.int64) - INTERPOLATION_MARGIN_VOXELS
    extent = int(np.ceil(scale * (n - 1))) + 2 + 2 * INTERPOLATION_MARGIN_VOXELS
    cut = _cut(tomogram, corner, extent, edge)
    if scale > 1:
        # A Gaussian of half the new voxel size suppresses aliasing.
        cut = scipy.ndimage.gaussian_filter(cut, 0.5 * np.sqrt(scale**2 - 1), mode="nearest")
    # Given the diagonal alone, SciPy before 1.16 warns; the values and the time are the same.
    matrix = np.diag(np.full(3, scale))
    resampled: Float32 = scipy.ndimage.affine_transform(
        cut, matrix, offset=start - corner, output_shape=(n, n, n), order=3, mode="nearest"
    )
    return resampled


def _normalise(box: Float32, how: str) -> Float32:
    if how == "none":
        return box
    centred = box - box.mean(dtype=np.float64)
    if how == "zscore":
        deviation = float(centred.std(dtype=np.float64))
        # A constant box stays 0.
        centred = centred / deviation if deviation > 0 else centred
    return np.asarray(centred, dtype=np.float32)
