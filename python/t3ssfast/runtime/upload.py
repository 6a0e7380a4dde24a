"""Upload of the slices of a volume to a device, in their stored dtype and through pinned memory."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["Uploader", "as_float32"]

# Size of each of the two buffers, or of a slice if that is more: long copies, and little pinned memory.
BUFFER_BYTES = 32 << 20

# Dtypes that are uploaded as they are stored; others are converted to float32 first. PyTorch does not compute
# with uint16, so it is uploaded as the int16 of the same bits.
_UPLOADED_AS = {name: name for name in ("uint8", "int8", "int16", "float16", "float32")}
_UPLOADED_AS |= {"bool": "uint8", "uint16": "int16"}


def as_float32(values: Tensor, stored: np.dtype[Any]) -> Tensor:
    """Convert the result of `Uploader.upload` of an array of dtype `stored` to float32."""
    if stored.kind == "u" and stored.itemsize == 2:
        return (values.to(torch.int32) & 0xFFFF).to(torch.float32)
    return values.to(torch.float32)


class Uploader:
    """Uploads slices of volumes to one device, for one thread.

    While the device copies from one of two pinned buffers, the next slices are read into the other. Copies
    run on a separate stream, in parallel with the caller's kernels. On a CPU the buffers are ordinary memory.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._buffers: list[Tensor] = []
        self._on_cuda = device.type == "cuda"
        if self._on_cuda:
            # The stream of the thread that creates the uploader, which will use the uploaded data.
            self._consumer = torch.cuda.current_stream(device)
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self._copied = [torch.cuda.Event(), torch.cuda.Event()]  # type: ignore[no-untyped-call]

    def stream(self) -> AbstractContextManager[Any]:
        """Return a context in which computations run on the stream of the copies, after them."""
        return torch.cuda.stream(self._stream) if self._on_cuda else nullcontext()

    def finish(self, result: Tensor) -> Tensor:
        """Wait for everything started inside `stream()`, and return a result that the caller may then use."""
        if self._on_cuda:
            self._stream.synchronize()
            # Keeps the allocator from reusing the memory while the consumer's stream reads it.
            result.record_stream(self._consumer)
        return result

    def upload(self, data: npt.NDArray[Any], z0: int, z1: int) -> Tensor:
        """Upload slices z0 to z1 (exclusive) of a (z, y, x) array inside `stream()`; see `as_float32`."""
        dtype = np.dtype(_UPLOADED_AS.get(data.dtype.name, "float32"))
        height, width = data.shape[1:]
        slice_bytes = height * width * dtype.itemsize
        slices_per_copy = max(1, BUFFER_BYTES // max(1, slice_bytes))
        out = torch.empty((z1 - z0, height, width), dtype=getattr(torch, dtype.name), device=self.device)
        for number, first in enumerate(range(z0, z1, slices_per_copy)):
            last = min(first + slices_per_copy, z1)
            buffer = self._buffer(number % 2, slices_per_copy * slice_bytes)[: (last - first) * slice_bytes]
            staged = buffer.numpy().view(dtype).reshape(last - first, height, width)
            target = staged.view(np.uint16) if data.dtype.name == "uint16" else staged
            # Also swaps the bytes of big-endian data.
            np.copyto(target, data[first:last], casting="unsafe")
            out[first - z0 : last - z0].copy_(torch.from_numpy(staged), non_blocking=True)
            if self._on_cuda:
                self._copied[number % 2].record(self._stream)
        return out

    def _buffer(self, number: int, size: int) -> Tensor:
        """Return one of the two buffers, with at least `size` bytes, when no copy reads from it any more."""
        if self._on_cuda:
            self._copied[number].synchronize()
        if not self._buffers or len(self._buffers[0]) < size:
            if self._on_cuda:
                self._stream.synchronize()
            self._buffers = [torch.empty(size, dtype=torch.uint8, pin_memory=self._on_cuda) for _ in range(2)]
        return self._buffers[number]
