"""Training windows of the classifier: cut out of tomograms, then rotated, scaled and augmented."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from t3ssfast.training.augment import augment_values, random_placement, sample
from t3ssfast.training.data import TrainingTomogram
from t3ssfast.training.loop import Batch
from t3ssfast.training.options import ClassifierOptions

__all__ = ["Positions", "WindowPool", "cut_out", "voxels_around"]

# (n, 3) voxels, zyx.
Positions = npt.NDArray[np.int64]


@dataclass
class WindowPool:
    """Cut-outs to draw windows from, each (n, side, side) float16."""

    positive: Tensor  # around T3SS
    random: Tensor  # random negatives
    other: Tensor  # around picks of another kind
    mined: Tensor  # hard negatives

    def draw(self, rng: np.random.Generator, count: int, options: ClassifierOptions) -> Batch:
        """Draw augmented windows (count, 1, window, window) and their classes (count,)."""
        positives = max(1, round(options.positive_share * count))
        hard = torch.cat([self.other, self.mined])
        negatives = count - positives
        hards = round(options.hard_share * negatives) if len(hard) else 0
        if len(self.random) == 0:
            hards = negatives
        counts = ((self.positive, positives), (hard, hards), (self.random, negatives - hards))
        drawn = [pool[torch.from_numpy(rng.integers(len(pool), size=n))] for pool, n in counts if n]
        cut = torch.cat(drawn).float()[:, None]
        jitter, middle = options.jitter_nm * 10.0 / options.voxel_size_angstrom, cut.shape[-1] // 2
        placements = []
        for _ in range(len(cut)):
            # Uniform on a disk.
            angle, radius = rng.uniform(0, 2 * np.pi), jitter * np.sqrt(rng.random())
            centre = (float(middle + radius * np.sin(angle)), float(middle + radius * np.cos(angle)))
            placements.append(random_placement(rng, centre, options.augment))
        windows = sample(cut, placements, options.window_px, middle=options.window_px // 2)
        classes = (torch.arange(len(cut)) < positives).long()
        return augment_values(windows, rng, options.augment), classes

    def all_windows(self, options: ClassifierOptions) -> Batch:
        """Return every window without augmentation, (N, 1, window, window) float16, and the classes (N,)."""
        start = self.positive.shape[-1] // 2 - options.window_px // 2
        inner = slice(start, start + options.window_px)
        parts = [p[:, None, inner, inner] for p in (self.positive, self.random, self.other, self.mined)]
        windows = torch.cat(parts)
        return windows, (torch.arange(len(windows)) < len(self.positive)).long()


def cut_out(
    tomograms: Sequence[TrainingTomogram], positions: Sequence[Positions], options: ClassifierOptions
) -> Tensor:
    """Cut images (n, side, side) float16 centred at positions; slices are mirrored at their edges."""
    # Half a diagonal, for windows at any angle, and off the centre by the jitter.
    jitter = options.jitter_nm * 10.0 / options.voxel_size_angstrom
    needed = 0.5 * 2**0.5 * options.window_px / options.augment.scale[0] + jitter
    # At scales below 0.9, the corners of rotated windows show the mirrored cut-out instead.
    half = int(np.ceil(min(needed, 0.8 * options.window_px)))
    side = 2 * half + 1
    parts = [np.zeros((0, side, side), np.float16)]
    for tomogram, voxels in zip(tomograms, positions, strict=True):
        cut = np.empty((len(voxels), side, side), np.float16)
        for z in np.unique(voxels[:, 0]):
            image = np.pad(tomogram.prepared.slab(int(z), int(z) + 1)[0], half, mode="reflect")
            for k in np.flatnonzero(voxels[:, 0] == z):
                y, x = voxels[k, 1:]
                cut[k] = image[y : y + side, x : x + side]
        parts.append(cut)
    return torch.from_numpy(np.concatenate(parts))


def voxels_around(tomogram: TrainingTomogram, centres_zyx: npt.NDArray[np.float64], reach: int) -> Positions:
    """Return the voxels at centres and up to `reach` slices above and below them."""
    _, height, width = tomogram.prepared.shape
    found = [
        (z, int(np.clip(round(y), 0, height - 1)), int(np.clip(round(x), 0, width - 1)))
        for centre_z, y, x in centres_zyx
        for z in range(round(centre_z) - reach, round(centre_z) + reach + 1)
        if tomogram.z0 <= z < tomogram.z1
    ]
    return np.array(found, np.int64).reshape(-1, 3)
