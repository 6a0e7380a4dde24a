"""The kernel probability_levels: the weighted mean of slices, in levels of 8 bits."""

from __future__ import annotations

import torch

from t3ssfast.kernels._native.extension import core, current_device

__all__ = ["HIGHEST_LEVEL", "probability_levels"]

# The level of probability 1: a quarter of the memory of float32.
HIGHEST_LEVEL = 255


def probability_levels(
    slices: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    weights: tuple[float, float, float],
    out: torch.Tensor,
    *,
    device: torch.device,
    first_nonfinite: torch.Tensor | None = None,
    threads: int | None = None,
) -> bool:
    """Average slices, and round to the nearest level, ties to even.

    The levels are those of NumPy's float32, for averages in [0, 1]; others give the lowest or highest level.

    Parameters
    ----------
    slices
        Three times (y, x) float32 in [0, 1], C-contiguous.
    weights
        Their weights, with the sum 1; the products are added in order.
    out
        (y, x) uint8, C-contiguous: `HIGHEST_LEVEL` where the average is 1.
    device
        A CUDA device or the CPU, where all tensors are.
    first_nonfinite
        On a CUDA device: one int64, lowered to the flat index of the first average that is NaN or Inf.
    threads
        OpenMP threads; PyTorch's number where None.

    Returns
    -------
    bool
        Whether all averages are finite; on a CUDA device always True, because the kernel is only enqueued.

    Raises
    ------
    ValueError
        If a tensor has another dtype or shape, or is not contiguous.
    """
    for tensor in slices:
        _check(tensor, torch.float32, out)
    _check(out, torch.uint8, out)
    addresses = slices[0].data_ptr(), slices[1].data_ptr(), slices[2].data_ptr()
    arguments = (addresses, weights, out.numel(), out.data_ptr())
    if device.type != "cuda":
        return core.probability_levels_cpu(*arguments, threads or torch.get_num_threads())
    assert first_nonfinite is not None, "on a CUDA device the kernel reports through it"
    with current_device(device) as launch:
        core.probability_levels_cuda(*arguments, first_nonfinite.data_ptr(), launch)
    return True


def _check(tensor: torch.Tensor, dtype: torch.dtype, out: torch.Tensor) -> None:
    if tensor.shape != out.shape or tensor.dtype != dtype or not tensor.is_contiguous():
        expected = f"a contiguous tensor of {dtype} and shape {tuple(out.shape)}"
        raise ValueError(f"expected {expected}, got {tensor.dtype} and shape {tuple(tensor.shape)}")
