"""Subtomograms: boxes about candidates, cut from memory-mapped tomograms, and the wedge that they lack."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.ndimage
import torch

from t3ssfast.candidates import Candidates
from t3ssfast.errors import ConfigError, InputError
from t3ssfast.io import read
from t3ssfast.tomogram import Tomogram, check_voxel_size

__all__ = ["Placement", "box_voxels", "check_tilt_range", "extract", "place", "wedge_weight"]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

EDGES = ("reflect", "mean", "drop", "error")
NORMALISATIONS = ("zscore", "mean", "none")
CONTRASTS = ("dark", "light")
MAX_BOX = 1024
# Below this difference two voxel sizes are one: headers hold float32.
SAME_SIZE = 1e-3


@dataclass(frozen=True)
class Placement:
    """Where boxes lie in a tomogram.

    Parameters
    ----------
    index
        (m,) of the candidates that have a box; all but those that the edge policy dropped.
    corner_zyx
        (m, 3) int64, the box's first voxel in the tomogram, where the voxel sizes agree.
    offset_zyx
        (m, 3) float64, how far the candidate is from voxel box // 2 of its box, in the box's voxels.
    """

    index: npt.NDArray[np.int64]
    corner_zyx: npt.NDArray[np.int64]
    offset_zyx: Float64


def box_voxels(box: int | None, box_nm: float | None, voxel_size_angstrom: float) -> int:
    """Edge of a box in voxels: as given, or the even number next to `box_nm`.

    Raises
    ------
    ConfigError
        Unless one of both is given, and comes to 4 to 1024 voxels.
    """
    if (box is None) == (box_nm is None):
        raise ConfigError(
            "The box must be given in voxels (box, --box) or in nm (box_nm, --box-nm), one of the two."
        )
    edge = box if box_nm is None else 2 * round(box_nm * 10 / voxel_size_angstrom / 2)
    if edge is None or isinstance(edge, bool) or edge != int(edge) or not 4 <= edge <= MAX_BOX:
        given = f"box {box}" if box_nm is None else f"box_nm {box_nm}"
        raise ConfigError(f"{given} comes to {edge} voxels; give a box of 4 to {MAX_BOX} voxels.")
    return int(edge)


def extract(
    tomogram: Tomogram | str | os.PathLike[str] | npt.NDArray[Any],
    candidates: Candidates,
    box: int | None = None,
    *,
    box_nm: float | None = None,
    voxel_size_angstrom: float | None = None,
    edge: str = "reflect",
    contrast: str = "dark",
    normalise: str = "zscore",
) -> Float32:
    """Cut a box about each candidate; only the boxes are read from a memory-mapped tomogram.

    The candidate is in voxel ``box // 2`` along each axis. Where the boxes have the tomogram's own voxel
    size they are cut at whole voxels and no value is changed by interpolation; what is left of the position,
    up to half a voxel an axis, is in `place`.

    Parameters
    ----------
    tomogram
        `Tomogram`, path, or a (z, y, x) array whose voxels are those of `candidates`.
    candidates
        Their centres are converted where their voxel size is another than the tomogram's.
    box, box_nm
        Edge of the boxes in voxels, or in nm (then even).
    voxel_size_angstrom
        Of the boxes; None: the tomogram's. Any other one is interpolated (cubic, after a blur where the
        voxels get larger), centred exactly.
    edge
        For boxes that leave the tomogram: "reflect" fills them with its mirror image, "mean" with the mean of
        what is inside, "drop" leaves such candidates out, "error" refuses.
    contrast
        Protein in the tomogram: "dark" ones are inverted, so that boxes always have bright protein.
    normalise
        Each box to mean 0 and standard deviation 1 ("zscore"), to mean 0 ("mean"), or as it is ("none").

    Returns
    -------
    (n, box, box, box) float32, in the order of the candidates.

    Raises
    ------
    ConfigError
        If an option has a value that cannot be used.
    InputError
        If a candidate lies outside of the tomogram, or a box leaves it under edge="error".
    """
    volume = _tomogram(tomogram, candidates)
    size = _target_size(volume, voxel_size_angstrom)
    n = box_voxels(box, box_nm, size)
    placement = place(volume, candidates, n, voxel_size_angstrom=voxel_size_angstrom, edge=edge)
    for name, value, known in (("contrast", contrast, CONTRASTS), ("normalise", normalise, NORMALISATIONS)):
        if value not in known:
            raise ConfigError(f"{name} is {value!r}; give one of {', '.join(known)}.")
    boxes = np.empty((len(placement.index), n, n, n), np.float32)
    centres = _centres(volume, candidates)
    for row, index in enumerate(placement.index):
        if _same(size, volume.voxel_size_angstrom):
            cut = _cut(volume, placement.corner_zyx[row], n, edge)
        else:
            cut = _resampled(volume, centres[index], n, size / volume.voxel_size_angstrom, edge)
        boxes[row] = _normalised(cut, normalise) * (-1 if contrast == "dark" else 1)
    return boxes


def place(
    tomogram: Tomogram,
    candidates: Candidates,
    box: int,
    *,
    voxel_size_angstrom: float | None = None,
    edge: str = "reflect",
) -> Placement:
    """Where `extract` cuts its boxes; parameters and errors are those of `extract`."""
    if edge not in EDGES:
        raise ConfigError(f"edge is {edge!r}; give one of {', '.join(EDGES)}.")
    centre = _centres(tomogram, candidates)
    shape = np.array(tomogram.shape)
    outside = ((centre < -0.5) | (centre > shape - 0.5)).any(axis=1)
    if outside.any():
        first = int(np.flatnonzero(outside)[0])
        at = ", ".join(f"{c:.1f}" for c in centre[first])
        raise InputError(
            f"Candidate {first + 1} at ({at}) zyx lies outside of {tomogram.name}, {tuple(tomogram.shape)} "
            "voxels; check that the candidates belong to this tomogram and their voxel size."
        )
    size = _target_size(tomogram, voxel_size_angstrom)
    scale = size / tomogram.voxel_size_angstrom
    nearest = np.floor(centre + 0.5).astype(np.int64)
    same = _same(size, tomogram.voxel_size_angstrom)
    corner = nearest - box // 2 if same else np.floor(centre - scale * (box // 2)).astype(np.int64)
    extent = box if same else int(np.ceil(scale * (box - 1))) + 2
    beyond = ((corner < 0) | (corner + extent > shape)).any(axis=1)
    if edge == "error" and beyond.any():
        raise InputError(
            f"{int(beyond.sum())} of {len(centre)} boxes of {box} voxels leave {tomogram.name}; give another "
            "edge policy (reflect, mean, drop) or a smaller box."
        )
    index = np.flatnonzero(~beyond) if edge == "drop" else np.arange(len(centre))
    offset = (centre - nearest)[index] if same else np.zeros((len(index), 3))
    return Placement(index, corner[index], offset)


def _tomogram(
    given: Tomogram | str | os.PathLike[str] | npt.NDArray[Any], candidates: Candidates
) -> Tomogram:
    if isinstance(given, Tomogram):
        return given
    if isinstance(given, np.ndarray):
        return Tomogram(given, candidates.voxel_size_angstrom, candidates.tomogram_name)
    return read(given)


def _same(one: float, other: float) -> bool:
    return abs(one / other - 1) < SAME_SIZE


def _target_size(tomogram: Tomogram, wanted: float | None) -> float:
    if wanted is None:
        return tomogram.voxel_size_angstrom
    return check_voxel_size(wanted, source="voxel_size_angstrom")


def _centres(tomogram: Tomogram, candidates: Candidates) -> Float64:
    """(n, 3) centres in the tomogram's voxels."""
    factor = candidates.voxel_size_angstrom / tomogram.voxel_size_angstrom
    factor = 1.0 if _same(factor, 1.0) else factor
    return np.asarray(candidates.centre_zyx, dtype=np.float64) * factor


def _cut(tomogram: Tomogram, corner: npt.NDArray[np.int64], extent: int, edge: str) -> Float32:
    """A cube of voxels, filled up by the edge policy where the tomogram ends."""
    shape = np.array(tomogram.shape)
    low, high = np.clip(corner, 0, shape), np.clip(corner + extent, 0, shape)
    inside = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    part = np.asarray(tomogram.data[inside], dtype=np.float32)
    if not np.isfinite(part).all():
        raise InputError(
            f"{tomogram.name} has voxels that are not finite about {tuple(map(int, corner))} zyx; repair it."
        )
    before, after = low - corner, corner + extent - high
    if not before.any() and not after.any():
        return part
    width = list(zip(before.tolist(), after.tolist(), strict=True))
    if edge == "mean":
        return np.pad(part, width, constant_values=float(part.mean(dtype=np.float64)))
    return np.pad(part, width, mode="symmetric")


def _resampled(tomogram: Tomogram, centre: Float64, n: int, scale: float, edge: str) -> Float32:
    """A cube of n voxels, each `scale` of the tomogram's, with voxel n // 2 at `centre`."""
    margin = 4
    start = centre - scale * (n // 2)
    corner = np.floor(start).astype(np.int64) - margin
    cut = _cut(tomogram, corner, int(np.ceil(scale * (n - 1))) + 2 + 2 * margin, edge)
    if scale > 1:
        # Half a new voxel's width keeps what the larger voxels cannot hold from folding back.
        cut = scipy.ndimage.gaussian_filter(cut, 0.5 * np.sqrt(scale**2 - 1), mode="nearest")
    turned: Float32 = scipy.ndimage.affine_transform(
        cut, np.full(3, scale), offset=start - corner, output_shape=(n, n, n), order=3, mode="nearest"
    )
    return turned


def _normalised(cut: Float32, how: str) -> Float32:
    if how == "none":
        return cut
    centred = cut - cut.mean(dtype=np.float64)
    if how == "zscore":
        deviation = float(centred.std(dtype=np.float64))
        # A box without contrast stays 0 everywhere.
        centred = centred / deviation if deviation > 0 else centred
    return np.asarray(centred, dtype=np.float32)


def check_tilt_range(tilt_range_degrees: tuple[float, float]) -> tuple[float, float]:
    """The lowest and highest tilt, or ConfigError unless they lie in order within -90 to 90 degrees."""
    try:
        low, high = (float(a) for a in tilt_range_degrees)
    except (TypeError, ValueError):
        low, high = 0.0, 0.0
    if not -90 <= low < high <= 90:
        raise ConfigError(
            f"The tilt range is {tilt_range_degrees!r}; give the lowest and the highest tilt, between -90 "
            "and 90 degrees."
        )
    return low, high


def wedge_weight(frequency_zyx: torch.Tensor, tilt_range_degrees: tuple[float, float]) -> torch.Tensor:
    """What a single-axis tilt series about y has measured: 1 inside, 0 in the missing wedge, (...).

    The beam runs along z: a view at tilt a measures the plane spanned by y and (cos a, sin a) in (x, z).
    The edge is one frequency sample wide.

    Parameters
    ----------
    frequency_zyx
        (..., 3).
    tilt_range_degrees
        Lowest and highest tilt.
    """
    kz, kx = frequency_zyx[..., 0], frequency_zyx[..., 2]
    # Either sign of a frequency is as good: the half with kx >= 0 has its angle within -90 to 90.
    sign = torch.where(kx < 0, -1.0, 1.0)
    kz, kx = kz * sign, kx * sign
    low, high = (torch.deg2rad(kz.new_tensor(a)) for a in tilt_range_degrees)
    above = kz * torch.cos(high) - kx * torch.sin(high)
    below = kx * torch.sin(low) - kz * torch.cos(low)
    beyond = torch.maximum(above, below)
    return (1 - beyond).clamp(0, 1)
