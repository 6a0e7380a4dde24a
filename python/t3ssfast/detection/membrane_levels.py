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
    """The levels of one slab, made where the segmenter runs.

    On a CPU they are written to `out`. From a CUDA device, `finish` brings them to the host: one copy of a
    byte per voxel, and none of the float32 slices.
    """

    def __init__(self, out: npt.NDArray[np.uint8], segmenter: LoadedModel) -> None:
        self._segmenter = segmenter
        self._out = out
        self._levels = torch.from_numpy(out)
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

    def finish(self) -> npt.NDArray[np.uint8]:
        """Wait for the device, and return the levels: `out`, or pinned memory that is to be copied there.

        Raises ModelError if a probability was NaN.
        """
        if self._first_nonfinite is None:
            return self._out
        # Into pageable memory the driver would copy twice, and the caller would wait for both.
        pinned = torch.empty(self._levels.shape, dtype=torch.uint8, pin_memory=True)
        pinned.copy_(self._levels, non_blocking=True)
        # Waits for everything that was enqueued before it on the same stream.
        if int(self._first_nonfinite) < self._pixels:
            raise nan_error(self._segmenter)
        return pinned.numpy()
