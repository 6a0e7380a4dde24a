"""Slices of a volume brought to a device in the type that they are stored in, through pinned memory."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["Uploader", "as_float32"]

# Bytes of one of the two buffers, or a slice if that is more: long copies, and little memory held in place.
STAGE_BYTES = 32 << 20

# What each stored type travels as; all others are made float32 before they leave. PyTorch computes with no
# unsigned 16 bits, so these travel as the signed ones with the same bits.
_TRAVELS: dict[str, tuple[npt.DTypeLike, torch.dtype]] = {
    "bool": (np.uint8, torch.uint8),
    "uint8": (np.uint8, torch.uint8),
    "int8": (np.int8, torch.int8),
    "int16": (np.int16, torch.int16),
    "uint16": (np.int16, torch.int16),
    "float16": (np.float16, torch.float16),
    "float32": (np.float32, torch.float32),
}


def as_float32(values: Tensor, stored: np.dtype[Any]) -> Tensor:
    """Uploaded values as float32, exact for every type that travels as it is stored.

    Parameters
    ----------
    values
        What `Uploader.upload` gave.
    stored
        The dtype of the array that was uploaded.
    """
    if stored.kind == "u" and stored.itemsize == 2:
        return (values.to(torch.int32) & 0xFFFF).to(torch.float32)
    return values.to(torch.float32)


class Uploader:
    """Brings slices of volumes to one device.

    There are two pinned buffers: while the device copies one, the next slices are read from the file into the
    other. Copies run on a stream of their own, beside the caller's kernels. On a CPU the same is done with
    plain memory, for tests. It is used by one thread at a time.

    Parameters
    ----------
    device
        Where to.

    Attributes
    ----------
    device
        As given.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._buffers: list[Tensor] = []
        self._on_cuda = device.type == "cuda"
        if self._on_cuda:
            # Of the thread that makes this one, which will use what is uploaded.
            self._user = torch.cuda.current_stream(device)
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self._copied = [torch.cuda.Event(), torch.cuda.Event()]  # type: ignore[no-untyped-call]

    def stream(self) -> AbstractContextManager[Any]:
        """What is computed inside follows the copies in their own stream."""
        return torch.cuda.stream(self._stream) if self._on_cuda else nullcontext()

    def finish(self, result: Tensor) -> Tensor:
        """Wait until all is done that was begun inside `stream()`; the result may then be used by the caller.

        Its memory is not handed on before the stream of the thread that made the uploader has used it.
        """
        if self._on_cuda:
            self._stream.synchronize()
            result.record_stream(self._user)
        return result

    def upload(self, data: npt.NDArray[Any], z0: int, z1: int) -> Tensor:
        """Slices z0 up to z1 of a (z, y, x) array, which may be a mapped file; call it inside `stream()`.

        Returns
        -------
        (z1 - z0, y, x) on the device; int8, uint8, int16, float16 and float32 as they are stored, uint16 as
        the int16 of the same bits, all others as float32: see `as_float32`.
        """
        travels, kind = _TRAVELS.get(data.dtype.name, (np.float32, torch.float32))
        height, width = data.shape[1:]
        slice_bytes = height * width * np.dtype(travels).itemsize
        together = max(1, STAGE_BYTES // max(1, slice_bytes))
        out = torch.empty((z1 - z0, height, width), dtype=kind, device=self.device)
        for number, first in enumerate(range(z0, z1, together)):
            last = min(first + together, z1)
            buffer = self._buffer(number % 2, together * slice_bytes)[: (last - first) * slice_bytes]
            staged = buffer.numpy().view(travels).reshape(last - first, height, width)
            # Bytes in another order are turned round in passing.
            into = staged.view(np.uint16) if data.dtype.name == "uint16" else staged
            np.copyto(into, data[first:last], casting="unsafe")
            out[first - z0 : last - z0].copy_(torch.from_numpy(staged), non_blocking=True)
            if self._on_cuda:
                self._copied[number % 2].record(self._stream)
        return out

    def _buffer(self, number: int, count: int) -> Tensor:
        """One of the two buffers, of at least so many bytes, when nothing is copied from it any more."""
        if self._on_cuda:
            self._copied[number].synchronize()
        if not self._buffers or len(self._buffers[0]) < count:
            if self._on_cuda:
                self._stream.synchronize()
            self._buffers = [
                torch.empty(count, dtype=torch.uint8, pin_memory=self._on_cuda) for _ in range(2)
            ]
        return self._buffers[number]
