"""Views of a candidate in its own frame: the membrane lies flat, and the needle points up."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, map_coordinates

from t3ssfast.candidates import Candidates
from t3ssfast.detection.cylindrical_sections import INNER_FRACTION, axis_frames
from t3ssfast.plotting.canvas import grey_limits
from t3ssfast.tomogram import Tomogram

__all__ = ["PIXEL_NM", "VIEWS", "VIEW_NM", "VIEW_PIXELS", "views_of_candidates"]

# A T3SS is about 32 nm tall, and its needle 50 nm and more.
VIEW_NM = 76.0
VIEW_PIXELS = 56
PIXEL_NM = VIEW_NM / VIEW_PIXELS
# Names of the views, in the order of the images.
VIEWS = (
    "section along the axis",
    "section along the axis, a quarter turn on",
    "section across the axis",
    "mean of the sections around the axis",
)
# Sections are averaged over this thickness.
THICKNESS_NM = 6.0
THICKNESS_STEPS = 5
# Noise that is finer than this does not survive the compression of the image, but costs bytes.
BLUR_PIXELS = 0.7
AZIMUTHS = 24
# Grey where the tomogram ends, instead of mirrored streaks.
OUTSIDE = 128
# Darkest and brightest share of the pixels that are clipped.
CLIPPED_PERCENT = 0.7

FloatArray = npt.NDArray[np.float32]


def views_of_candidates(
    tomogram: Tomogram, candidates: Candidates, contrast_sign: int = 1
) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the (4, VIEW_PIXELS, VIEW_PIXELS) views of each candidate as grey values, protein dark.

    The sections show the plane across the beam, where nothing is missing, the plane that holds the axis and
    the beam, and the plane across the axis at the centre. The fourth is their mean around the axis, mirrored.
    """
    step = PIXEL_NM * 10 / tomogram.voxel_size_angstrom
    centres = candidates.centre_zyx.astype(np.float64)
    centres *= candidates.voxel_size_angstrom / tomogram.voxel_size_angstrom
    frames = axis_frames(candidates.normal_zyx.astype(np.float64)) if len(candidates) else np.zeros((0, 3, 3))
    points = _points()
    for centre, frame in zip(centres, frames, strict=True):
        sampled = _sample(tomogram, centre, points @ frame * step, step)
        yield _grey_values(sampled * contrast_sign)


def _points() -> npt.NDArray[np.float64]:
    """Return the (n, 3) points of all views in pixels, along the rows of a frame: axis, beam, quarter turn.

    Three sections of THICKNESS_STEPS x side x side points are followed by AZIMUTHS half-planes.
    """
    side = VIEW_PIXELS
    across = np.arange(side) - (side - 1) / 2
    # The top row is farthest out of the cell.
    along = (np.arange(side)[::-1] - int(side * INNER_FRACTION)).astype(np.float64)
    depth = np.linspace(-0.5, 0.5, THICKNESS_STEPS) * THICKNESS_NM / PIXEL_NM
    d, a, x = np.meshgrid(depth, along, across, indexing="ij")
    _, y, _ = np.meshgrid(depth, across, across, indexing="ij")
    sections = [np.stack([a, d, x], -1), np.stack([a, x, d], -1), np.stack([d, y, x], -1)]
    radius = np.arange(side // 2) + 0.5
    angle = 2 * np.pi * np.arange(AZIMUTHS) / AZIMUTHS
    t, a, r = np.meshgrid(angle, along, radius, indexing="ij")
    sections.append(np.stack([a, r * np.cos(t), r * np.sin(t)], -1))
    return np.concatenate([section.reshape(-1, 3) for section in sections])


def _sample(
    tomogram: Tomogram, centre: npt.NDArray[np.float64], offsets: npt.NDArray[np.float64], step: float
) -> FloatArray:
    """Interpolate at offsets from a centre, in voxels; NaN outside of the tomogram."""
    position = centre + offsets
    shape = np.array(tomogram.shape)
    binning = max(1, int(step))
    margin = 2 * binning + 1
    low = np.clip(np.floor(position.min(axis=0)).astype(int) - margin, 0, shape)
    high = np.clip(np.ceil(position.max(axis=0)).astype(int) + margin + 1, 0, shape)
    z, y, x = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    box = np.asarray(tomogram.data[z, y, x], np.float32)
    if box.size == 0:
        return np.full(len(position), np.nan, np.float32)
    box = np.nan_to_num(box, posinf=0.0, neginf=0.0)
    binned = _binned(box, binning)
    sigma = BLUR_PIXELS * step / binning
    smooth = gaussian_filter(binned, sigma, truncate=2.5)
    # Voxel k of the binned box is the mean of voxels k b ... k b + b - 1.
    coordinates = (position - low - (binning - 1) / 2) / binning
    values = map_coordinates(smooth, coordinates.T, order=1, mode="nearest")
    outside = ((position < -0.5) | (position > shape - 0.5)).any(axis=1)
    return np.where(outside, np.float32(np.nan), values)


def _binned(box: FloatArray, binning: int) -> FloatArray:
    """Average cubes of voxels; the rest of the last ones is left out, unless nothing would remain."""
    if binning == 1 or min(box.shape) < binning:
        return box
    z, y, x = (n // binning for n in box.shape)
    cut = box[: z * binning, : y * binning, : x * binning]
    cubes = cut.reshape(z, binning, y, binning, x, binning)
    return np.asarray(cubes.mean(axis=(1, 3, 5)), np.float32)


def _grey_values(sampled: FloatArray) -> npt.NDArray[np.uint8]:
    """Average the sections and stretch their contrast."""
    side = VIEW_PIXELS
    size = THICKNESS_STEPS * side * side
    sections = sampled[: 3 * size].reshape(3, THICKNESS_STEPS, side, side)
    around = sampled[3 * size :].reshape(AZIMUTHS, side, side // 2)
    known = np.isfinite(around)
    count = known.sum(axis=0)
    half = np.where(count, np.where(known, around, 0).sum(axis=0) / np.maximum(count, 1), np.nan)
    mean = np.concatenate([half[:, ::-1], half], axis=1)
    return np.concatenate([_stretched(sections.mean(axis=1)), _stretched(mean[None])])


def _stretched(images: FloatArray) -> npt.NDArray[np.uint8]:
    known = np.isfinite(images)
    if not known.any():
        return np.full(images.shape, OUTSIDE, np.uint8)
    low, high = grey_limits(images[known], CLIPPED_PERCENT)
    if not high > low:
        return np.full(images.shape, OUTSIDE, np.uint8)
    scaled = np.clip((np.where(known, images, low) - low) / (high - low) * 255, 0, 255)
    return np.where(known, np.rint(scaled), OUTSIDE).astype(np.uint8)
