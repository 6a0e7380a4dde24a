"""Membrane probability of the slices of a slab, means of segmented slices, in levels of 8 bits."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from t3ssfast.detection.segment_slice import nan_error
from t3ssfast.kernels import _native
from t3ssfast.models import LoadedModel

__all__ = ["MembraneLevels"]


class MembraneLevels:
    """The levels of one slab, made where the segmenter runs; `finish` brings those of a CUDA device to `out`.

    So one copy of a byte per voxel leaves the device, and none of its float32 slices.
    """

    def __init__(self, out: npt.NDArray[np.uint8], segmenter: LoadedModel) -> None:
        self._segmenter = segmenter
        self._out = torch.from_numpy(out)
        self._levels = self._out
        self._pixels = out[0].size
        self._first_nonfinite: torch.Tensor | None = None
        # The tensors of other devices come from the CPU, see `segment_on_device`.
        self._device = segmenter.device if segmenter.device.type == "cuda" else torch.device("cpu")
        if self._device.type == "cuda":
            self._levels = torch.empty(out.shape, dtype=torch.uint8, device=self._device)
            self._first_nonfinite = torch.full((1,), self._pixels, dtype=torch.int64, device=self._device)

    def write(self, k: int, weights: Mapping[int, float], segmented: Mapping[int, torch.Tensor]) -> None:
        """Average slice k of the slab, with `slice_weights`, from what `segment_on_device` gave.

        Raises ModelError if a probability is NaN, on a CUDA device only in `finish`.
        """
        numbers = sorted(weights)
        # The kernel takes three; one that is repeated weighs nothing.
        low, middle, high = (numbers[min(n, len(numbers) - 1)] for n in range(3))
        shares = [weights[n] for n in numbers] + [0.0] * (3 - len(numbers))
        finite = _native.probability_levels(
            (segmented[low], segmented[middle], segmented[high]),
            (shares[0], shares[1], shares[2]),
            self._levels[k],
            device=self._device,
            first_nonfinite=self._first_nonfinite,
        )
        if not finite:
            raise nan_error(self._segmenter)

    def finish(self) -> None:
        """Wait for the device, and copy the levels from it. Raises ModelError if a probability was NaN."""
        if self._first_nonfinite is None:
            return
        self._out.copy_(self._levels)
        if int(self._first_nonfinite) < self._pixels:
            raise nan_error(self._segmenter)
