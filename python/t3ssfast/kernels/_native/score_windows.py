"""The family that slides a chain of layers over windows, by the schedule that fits the device."""

from __future__ import annotations

import torch

from t3ssfast.kernels._native.extension import core
from t3ssfast.kernels._native.images import ImageStack
from t3ssfast.kernels._native.layer_program import LayerProgram, prepared
from t3ssfast.kernels._native.simt import score_tiles
from t3ssfast.kernels._native.tensor_core import HostWarps, score_warps
from t3ssfast.kernels._native.windows import Windows

__all__ = ["score_windows"]


def score_windows(
    stack: ImageStack,
    size: int,
    program: LayerProgram,
    windows: Windows,
    *,
    precision: str = "float32",
    threads: int | None = None,
    least_of_nine: int | None = None,
    simd: str | None = None,
    schedule: str = "auto",
    head_lanes: int = 0,
    host_lanes: int = 0,
    reversed_lanes: bool = False,
    host_warps: HostWarps | None = None,
) -> torch.Tensor:
    """Answers of a chain of layers on every window, or on the windows asked for.

    Parameters
    ----------
    stack, size, windows
        Images, edge of a window, and which windows.
    program
        The chain.
    precision
        "float32", or on a CUDA device "tf32" or "bfloat16": the numbers that tensor cores multiply. In
        blocks of lanes, and on a CPU, float32 whatever is given.
    threads
        OpenMP threads; PyTorch's number where None.
    least_of_nine
        On a CPU: asked for in nine windows that lie together from which all nine are done together; above 9,
        each is done by itself. The program's own number where None.
    simd
        On a CPU: the instruction set to use, one of `SIMD`, or None for the best there is; for tests.
    schedule
        On a CUDA device "warps" (tensor cores), "lanes", or "auto": warps where device and chain allow.
    head_lanes
        Of a block of warps, 128 or 256; 0 for the kernel's own choice.
    host_lanes, reversed_lanes
        Where not 0, the CUDA schedule of lanes runs on the CPU, in blocks of so many; for tests.
    host_warps
        Where given, the CUDA schedule of warps runs on the CPU; for tests.

    Returns
    -------
    (M, C) float32 where windows are listed, or (C, ..., H-size+1, W-size+1); on the images' device.

    Raises
    ------
    ValueError
        If the chain does not fit the schedule.
    """
    if windows.index is None:
        shape, strides = (program.classes, *windows.shape), (1, windows.count)
    else:
        shape, strides = (windows.count, program.classes), (program.classes, 1)
    out = torch.empty(shape, dtype=torch.float32, device=stack.device)
    if windows.count == 0:
        return out
    if host_warps is not None or (stack.device.type == "cuda" and schedule != "lanes"):
        problem = score_warps(stack, size, program, windows, out, strides, precision, head_lanes, host_warps)
        if not problem:
            return out
        if schedule == "warps" or host_warps is not None:
            raise ValueError(f"score_windows: {problem}.")
    if stack.device.type == "cuda" or host_lanes:
        score_tiles(stack, size, program, windows, out, strides, host_lanes, reversed_lanes)
        return out
    core.score_windows_cpu(
        stack.address,
        *stack.geometry,
        size,
        prepared(program, size, program.least_of_nine if least_of_nine is None else least_of_nine, simd),
        windows.address,
        windows.count,
        out.data_ptr(),
        *strides,
        threads or torch.get_num_threads(),
    )
    return out
