"""The kernel score_windows: a chain of layers on every requested window."""

from __future__ import annotations

import torch

from t3ssfast.kernels._native.extension import core
from t3ssfast.kernels._native.images import ImageStack
from t3ssfast.kernels._native.layer_program import LayerProgram
from t3ssfast.kernels._native.simt import score_windows_simt
from t3ssfast.kernels._native.tensor_core import HostWarps, TensorCoreLayout, score_windows_tensor_core
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
    winograd_min_windows: int | None = None,
    simd: str | None = None,
    schedule: str = "auto",
    block_lanes: int = 0,
    host_lanes: int = 0,
    reversed_lanes: bool = False,
    host_warps: HostWarps | None = None,
    stride: int = 1,
) -> torch.Tensor:
    """Compute class scores of every window, or of the listed windows.

    Parameters
    ----------
    stack, size, windows
        Images, window edge in pixels, and the requested windows.
    program
        The chain of layers.
    precision
        "float32", or on a CUDA device "tf32" or "bfloat16": the number format of the tensor cores. The SIMT
        path and the CPU always compute in float32.
    threads
        OpenMP threads; PyTorch's number where None.
    winograd_min_windows
        On a CPU: minimum number of requested windows per 3 x 3 block for the Winograd path; above 9 the path
        is never used. The program's own number where None.
    simd
        On a CPU: instruction set, one of `SIMD`; the best one where None. For tests.
    schedule
        On a CUDA device: "tensor_core", "simt", or "auto" for tensor cores where device and program support
        them.
    block_lanes
        Threads per block of the fully connected layers on tensor cores, 128 or 256; 0 lets the device decide.
    host_lanes, reversed_lanes
        If `host_lanes` is not 0: emulate the SIMT path on the CPU, in blocks of that many lanes. For tests.
    host_warps
        If given: emulate the tensor-core path on the CPU. For tests.
    stride
        Windows begin at every `stride`-th row and column; `windows` are numbered among them. A CPU computes
        only the feature maps that they need; a CUDA device computes all.

    Returns
    -------
    (M, C) float32 if windows are listed, otherwise (C, ..., H-size+1, W-size+1); on the images' device.

    Raises
    ------
    ValueError
        If the program does not fit the device or the requested schedule.
    """
    if windows.index is None:
        shape, strides = (program.classes, *windows.shape), (1, windows.count)
    else:
        shape, strides = (windows.count, program.classes), (program.classes, 1)
    out = torch.empty(shape, dtype=torch.float32, device=stack.device)
    if windows.count == 0:
        return out
    on_cpu = stack.device.type == "cpu" and not host_lanes and host_warps is None
    prepared = program.prepare(size, winograd_min_windows, simd, stride) if on_cpu else None
    computed_stride = 1 if prepared is None else prepared.window_stride
    if computed_stride != stride:
        computed_shape = stack.window_shape(size, computed_stride)
        scores = score_windows(
            stack,
            size,
            program,
            windows.listed(computed_shape, stride // computed_stride, stack.device),
            precision=precision,
            threads=threads,
            winograd_min_windows=winograd_min_windows,
            simd=simd,
            schedule=schedule,
            block_lanes=block_lanes,
            host_lanes=host_lanes,
            reversed_lanes=reversed_lanes,
            host_warps=host_warps,
            stride=computed_stride,
        )
        return out.copy_(scores if windows.index is not None else scores.T.reshape(shape))
    if host_warps is not None or (stack.device.type == "cuda" and schedule != "simt"):
        try:
            layout = TensorCoreLayout.of(program, precision, stack.device, block_lanes, host_warps)
        except ValueError:
            if schedule == "tensor_core" or host_warps is not None:
                raise
        else:
            score_windows_tensor_core(
                stack, size, program, windows, out, strides, layout, block_lanes, host_warps
            )
            return out
    if stack.device.type == "cuda" or host_lanes:
        score_windows_simt(stack, size, program, windows, out, strides, host_lanes, reversed_lanes)
        return out
    assert prepared is not None, "on a CPU"
    threads = threads or torch.get_num_threads()
    core.score_windows_cpu(stack.native, size, prepared, windows.native, (out.data_ptr(), *strides), threads)
    return out
