"""Classification of every second slice first, and then of what may become a peak in the slices between."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch

from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.detection.preselect.slab_scan import MAX_SPACING_SIGMAS, PeakLimit
from t3ssfast.detection.search_region import SearchRegion
from t3ssfast.detection.smooth_scores import Scores, join_scores
from t3ssfast.kernels import _native

__all__ = ["EverySlice", "Request", "SlicesBetween"]

Mask = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
Values = FloatArray | torch.Tensor
Keep = Callable[[Values, Mask, int], Mask]

# Every how many slices are classified wherever the preselection keeps a window.
SPACING = 2
# Share of the lowest score of a peak that the average over these slices must reach. Of 744 peaks above 0.15
# in four calibration tomograms three were lost, the best with a score of 0.152, and a quarter of the windows.
LIKELY_SHARE = 0.5


@dataclass
class Request:
    """Windows to classify: (z, y, x) slices, and a mask of their shape that is 1 at the windows' centres.

    Whoever classifies them appends the scores, with flat indices into the slices.
    """

    slices: Values
    windows: Mask
    scores: list[Scores] = field(default_factory=list)


class EverySlice:
    """Asks for all windows of a slab that the preselection keeps at once: `keep(slab, region, z0)`."""

    def __init__(self, keep: Keep) -> None:
        self._keep = keep
        self._scores: list[Scores] = []

    def add(self, scores: Sequence[Scores], z0: int, z1: int) -> None:
        """Do nothing: no slice depends on the scores of others."""

    def requests(self, slab: Values | None, region: Mask, z0: int) -> Iterator[Request]:
        """Ask for the scores of a slab that begins at slice z0; an empty region needs no slab."""
        self._scores = []
        if slab is None:
            return
        request = Request(slab, self._keep(slab, region, z0))
        yield request
        self._scores = request.scores

    def slab_scores(self, z0: int, z1: int) -> list[Scores]:
        """Return the scores of the last slab, with flat indices into it."""
        return self._scores


class SlicesBetween:
    """Asks for the windows of a slab in every second slice, and then for some of those in the slices between.

    Peaks are found in scores that are averaged along z. The average over every second slice is nearly that
    over all of them, so where it is low, windows in the slices between are not classified. Neighbouring
    windows overlap by 98%, so an average counts for the eight windows beside its own, too. How a volume is
    cut into slabs does not change which windows are classified.

    `keep(slab, region, z0)` is the preselection, for a region of the slab's slices and those after it.
    """

    def __init__(
        self,
        grid: PreparedTomogram,
        search: SearchRegion,
        keep: Keep,
        peaks: PeakLimit,
    ) -> None:
        self._grid, self._search, self._keep = grid, search, keep
        self._plane = grid.shape[1] * grid.shape[2]
        sigma = peaks.smoothing_nm * 10 / grid.voxel_size_angstrom
        self._reach = math.ceil(3 * sigma)
        self._kernel = np.exp(-0.5 * (np.arange(self._reach + 1) / sigma) ** 2)
        self._likely_score = LIKELY_SHARE * peaks.threshold
        # By the number of the slice, with flat indices into it.
        self._scores: dict[int, Scores] = {}

    @staticmethod
    def suits(grid: PreparedTomogram, peaks: PeakLimit) -> bool:
        """Return whether the smoothing is wide enough for every second slice to tell the average."""
        return peaks.smoothing_nm * 10 / grid.voxel_size_angstrom * MAX_SPACING_SIGMAS >= SPACING

    def add(self, scores: Sequence[Scores], z0: int, z1: int) -> None:
        """Take the scores of slices z0 up to z1 from an earlier run, with flat indices into these slices."""
        self._forget(min(z0, z1 - self._reach))
        self._scores |= zip(range(z0, z1), self._of_slices(scores, z1 - z0), strict=True)

    def requests(self, slab: Values | None, region: Mask, z0: int) -> Iterator[Request]:
        """Ask for the scores of a slab that begins at slice z0; each request is answered before the next.

        The windows are those of the region that the preselection keeps; slabs come in order. An empty region
        needs no slab.
        """
        z1, depth = z0 + len(region), self._grid.shape[0]
        if slab is None:
            self.add([], z0, z1)
            return
        self._forget(z0 - self._reach)
        after = range(z1, min(z1 + self._reach, depth))
        ahead = [z for z in after if z % SPACING == 0 and z not in self._scores]
        wanted = region
        if ahead:
            wanted = np.zeros((ahead[-1] + 1 - z0, *region.shape[1:]), np.uint8)
            wanted[: len(slab)] = region
            for z in ahead:
                wanted[z - z0] = self._search.slab(z, z + 1)[0]
        kept = self._keep(slab, wanted, z0)
        new = {z - z0: z for z in range(z0, z1) if z % SPACING == 0 and z not in self._scores}
        yield from self._ask(slab, _slices_of(kept, new, len(slab)), new)
        if ahead:
            images = np.concatenate([self._grid.slab(z, z + 1) for z in ahead])
            yield from self._ask(images, kept[[z - z0 for z in ahead]], dict(enumerate(ahead)))
        between = {z - z0: z for z in range(z0, z1) if z % SPACING}
        chosen = _slices_of(kept, between, len(slab))
        self._choose(chosen, between)
        yield from self._ask(slab, chosen, between)

    def slab_scores(self, z0: int, z1: int) -> list[Scores]:
        """Return the scores of a slab, with flat indices into it, once all its requests are answered."""
        parts = [(z, self._scores[z]) for z in range(z0, z1)]
        return [join_scores([(index + (z - z0) * self._plane, value) for z, (index, value) in parts])]

    def _forget(self, z0: int) -> None:
        """Drop the scores of the slices before z0."""
        self._scores = {z: scores for z, scores in self._scores.items() if z >= z0}

    def _ask(self, slices: Values, windows: Mask, numbers: Mapping[int, int]) -> Iterator[Request]:
        """Ask for scores, and keep those of some slices: `numbers` has their place among all, and their z."""
        request = Request(slices, windows)
        yield request
        answers = self._of_slices(request.scores, len(slices))
        self._scores |= {z: answers[place] for place, z in numbers.items()}

    def _choose(self, windows: Mask, numbers: Mapping[int, int]) -> None:
        """Clear the windows that cannot belong to a peak; `numbers` are as for `_ask`, of slices between."""
        images: dict[int, FloatArray] = {}
        for place, z in numbers.items():
            if not windows[place].any():
                continue
            around = range(max(0, z - self._reach), min(z + self._reach + 1, self._grid.shape[0]))
            beside = [n for n in around if n % SPACING == 0]
            images = {n: images[n] if n in images else self._image(n) for n in beside}
            weights = self._kernel[[abs(n - z) for n in beside]]
            limit = float(self._likely_score * weights.sum())
            high = _native.mark_high_sums([images[n] for n in beside], weights.tolist(), limit)
            windows[place] &= _native.mark_near([high]).view(np.uint8)

    def _image(self, z: int) -> FloatArray:
        """The scores of a slice as an image, 0 where no window was classified."""
        image = np.zeros(self._grid.shape[1:], np.float32)
        index, value = self._scores[z]
        image.reshape(-1)[index] = value
        return image

    def _of_slices(self, scores: Sequence[Scores], slices: int) -> list[Scores]:
        """Split the scores of a number of slices by slice, with flat indices into each."""
        index, value = join_scores(scores)
        bounds = np.searchsorted(index, np.arange(slices + 1) * self._plane)
        return [
            (index[a:b] - z * self._plane, value[a:b]) for z, (a, b) in enumerate(pairwise(bounds.tolist()))
        ]


def _slices_of(kept: Mask, places: Collection[int], count: int) -> Mask:
    """Return the first `count` slices of a mask, with nothing in those that are not at the given places."""
    chosen = np.zeros((count, *kept.shape[1:]), np.uint8)
    for place in places:
        chosen[place] = kept[place]
    return chosen
