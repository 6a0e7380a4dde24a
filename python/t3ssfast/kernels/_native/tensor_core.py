"""The sliding schedule of CUDA devices with tensor cores: blocks of warps, a batch of images at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from t3ssfast.kernels._native.extension import core, launch_of
from t3ssfast.kernels._native.images import ImageStack
from t3ssfast.kernels._native.layer_program import LayerProgram
from t3ssfast.kernels._native.windows import Windows

__all__ = ["HostWarps", "score_warps"]

# Device memory for the feature maps of one batch of images in blocks of warps: enough windows for several
# rounds of blocks even where a mask holds few.
CUDA_MAP_BYTES = 512 << 20
_PRECISIONS = {"float32": 0, "tf32": 1, "bfloat16": 2}


@dataclass(frozen=True)
class HostWarps:
    """How blocks of warps run on the host, for tests.

    Parameters
    ----------
    lanes
        Of a block: a multiple of 32, of 64 where not `wide`.
    reversed
        Whether warps and lanes run backwards.
    late
        Whether copies land as late as they may.
    wide
        Which shape of a head: a warp holds all columns of 32 rows, or half of those of 64.
    tile_bytes, head_bytes
        Shared memory for a tile of feature maps, and for the rows of a head.
    """

    lanes: int
    reversed: bool = False
    late: bool = False
    wide: bool = True
    tile_bytes: int = 64 << 10
    head_bytes: int = 99 << 10


def _map_batches(
    stack: ImageStack, windows: Windows, rows: int, reach_y: int, row_bytes: int
) -> list[tuple[int, int, int, int]]:
    """Batches (first image, images, first row, rows) of windows whose feature maps fit CUDA_MAP_BYTES."""
    images = stack.geometry[0]
    together = CUDA_MAP_BYTES // (row_bytes * (rows + reach_y))
    if together >= 1:
        return [(z, min(together, images - z), 0, rows) for z in range(0, images, together)]
    band = max(1, CUDA_MAP_BYTES // row_bytes - reach_y)
    return [(z, 1, y, min(band, rows - y)) for z in range(images) for y in range(0, rows, band)]


def score_warps(
    stack: ImageStack,
    size: int,
    program: LayerProgram,
    windows: Windows,
    out: torch.Tensor,
    strides: tuple[int, int],
    precision: str,
    head_lanes: int,
    host: HostWarps | None,
) -> str:
    """Answers windows in blocks of warps, a batch of images at a time; why it cannot be done, or ""."""
    device, numbers = stack.device, _PRECISIONS[precision]
    windows_y, windows_x = windows.shape[-2:]
    launch = (-1, 0) if host is not None else launch_of(device)
    memory = (0, 0, False) if host is None else (host.tile_bytes, host.head_bytes, host.wide)
    problem, packed_words, pixel_words, reach_y, reach_x, *tile = core.score_windows_warp_layout(
        program.rows, program.map_layers, numbers, launch[0], *memory
    )
    if problem:
        return str(problem)
    parameters = program.parameters.to(device)
    packed = torch.empty(packed_words, dtype=torch.int32, device=device)
    row_words = (windows_x + reach_x) * pixel_words
    batches = _map_batches(stack, windows, windows_y, reach_y, 4 * row_words)
    plane_words = (max(rows for *_, rows in batches) + reach_y) * row_words
    maps = torch.empty(max(n for _, n, *_ in batches) * plane_words, dtype=torch.int32, device=device)
    # Windows of a batch follow each other in C order, listed or not.
    ends = torch.tensor([(z * windows_y + y) * windows_x for z, _, y, _ in batches] + [windows.count])
    if windows.index is not None:
        ends[:-1] = torch.searchsorted(windows.index, ends[:-1].to(device)).cpu()
    blocks = HostWarps(head_lanes) if host is None else host
    pack = True
    for batch, first, last in zip(batches, ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        if first == last:
            continue
        touched = None
        if windows.index is not None:
            down, across = -(-(batch[3] + reach_y) // tile[0]), -(-(windows_x + reach_x) // tile[1])
            touched = torch.zeros(batch[1] * down * across, dtype=torch.uint8, device=device)
        core.score_windows_warps(
            stack.address,
            *stack.geometry,
            size,
            program.rows,
            program.map_layers,
            parameters.data_ptr(),
            parameters.numel(),
            numbers,
            batch,
            tile,
            packed.data_ptr(),
            pack,
            maps.data_ptr(),
            0 if touched is None else touched.data_ptr(),
            windows.address,
            first,
            last - first,
            out.data_ptr(),
            *strides,
            *launch,
            blocks.lanes,
            blocks.reversed,
            blocks.late,
            blocks.wide,
        )
        pack = False
    return ""
