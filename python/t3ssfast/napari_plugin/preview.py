"""What a detection at work has found so far, from the slabs of its checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from t3ssfast.detection.pick import separate
from t3ssfast.runtime.checkpoint import Slab, finished_slabs
from t3ssfast.tomogram import Tomogram

__all__ = ["Preview"]

# Membrane probability, of 255, and score of a window, from which they are shown.
MEMBRANE_U8, WINDOW_SCORE = 153, 0.9
# Windows closer than this belong to one particle.
DISTANCE_NM = 20.0


class Preview:
    """The membrane and the windows with high scores, slab by slab, before they are verified.

    Parameters
    ----------
    folder
        That the detection works in.
    tomogram
        That it searches.

    Attributes
    ----------
    membrane
        (z, y, x) uint8 on the models' grid, or None before the first slab.
    centre_zyx
        (n, 3) on the same grid.
    """

    def __init__(self, folder: Path, tomogram: Tomogram) -> None:
        self._folder, self._tomogram = folder, tomogram
        self._membrane_slabs: set[Slab] = set()
        self._score_slabs: set[Slab] = set()
        self.membrane: npt.NDArray[np.uint8] | None = None
        self.centre_zyx: npt.NDArray[np.float32] = np.zeros((0, 3), np.float32)

    @property
    def voxel_size_angstrom(self) -> float:
        """Voxel size of the models' grid."""
        if self.membrane is None:
            return self._tomogram.voxel_size_angstrom
        return self._tomogram.voxel_size_angstrom * self._tomogram.shape[1] / int(self.membrane.shape[1])

    def update(self, depth: int) -> bool:
        """Read the slabs that are new, of a grid of `depth` slices; return whether there are any."""
        changed = False
        for slab, piece in finished_slabs(self._folder, "membrane", self._membrane_slabs):
            levels = piece.get("levels")
            if levels is None or levels.ndim != 3 or len(levels) != slab[1] - slab[0] or slab[1] > depth:
                continue
            if self.membrane is None:
                self.membrane = np.zeros((depth, *levels.shape[1:]), np.uint8)
            if levels.shape[1:] == self.membrane.shape[1:] and len(self.membrane) == depth:
                self.membrane[slab[0] : slab[1]] = levels >= MEMBRANE_U8
                self._membrane_slabs.add(slab)
                changed = True
        if self.membrane is None:
            # Without it the shape of a slice is not known.
            return changed
        for slab, piece in finished_slabs(self._folder, "scores", self._score_slabs):
            shape = (slab[1] - slab[0], *self.membrane.shape[1:])
            index, probability = piece.get("index"), piece.get("probability")
            self._score_slabs.add(slab)
            if index is None or probability is None or index.shape != probability.shape:
                continue
            high = probability >= WINDOW_SCORE
            if not high.any() or index.max() >= np.prod(shape):
                # The classifier's grid is another than the segmenter's.
                continue
            order = np.argsort(-probability[high], kind="stable")
            centres = np.stack(np.unravel_index(index[high][order].astype(np.int64), shape), axis=1)
            centres = (centres + np.array([slab[0], 0, 0])).astype(np.float32)
            every = np.concatenate([self.centre_zyx, centres])
            self.centre_zyx = every[separate(every, DISTANCE_NM * 10 / self.voxel_size_angstrom)]
            changed = True
        return changed
