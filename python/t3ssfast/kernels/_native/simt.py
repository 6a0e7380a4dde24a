"""The sliding schedule of any CUDA device: blocks of lanes, a batch of tiles at a time."""

from __future__ import annotations

import torch

from t3ssfast.kernels._native.extension import core, launch_of
from t3ssfast.kernels._native.images import ImageStack
from t3ssfast.kernels._native.layer_program import LayerProgram
from t3ssfast.kernels._native.windows import Windows

__all__ = ["score_tiles"]

# Edge of a tile of windows in blocks of lanes: its halo costs 6% of a LeNet's dense work.
CUDA_TILE = 32
# Device memory that the feature maps of one batch of tiles may take, and windows sorted into tiles at once.
CUDA_WORKSPACE_BYTES = 256 << 20
CUDA_WINDOWS = 1 << 22


def score_tiles(
    stack: ImageStack,
    size: int,
    program: LayerProgram,
    windows: Windows,
    out: torch.Tensor,
    strides: tuple[int, int],
    host_lanes: int,
    reversed_lanes: bool,
) -> None:
    """Sorts windows into tiles and answers them a batch of tiles at a time."""
    device = stack.device
    windows_y, windows_x = windows.shape[-2:]
    tiles_y, tiles_x = -(-windows_y // CUDA_TILE), -(-windows_x // CUDA_TILE)
    parameters = program.parameters.to(device)
    tile_floats = core.score_windows_tile_floats(program.rows, program.map_layers, CUDA_TILE)
    most_tiles = max(1, CUDA_WORKSPACE_BYTES // (4 * tile_floats))
    maps = torch.empty(0, dtype=torch.float32, device=device)
    launch = launch_of(device) if device.type == "cuda" else (-1, 0)
    for begin in range(0, windows.count, CUDA_WINDOWS):
        rows = torch.arange(begin, min(begin + CUDA_WINDOWS, windows.count), device=device)
        index = rows if windows.index is None else windows.index[begin : begin + CUDA_WINDOWS]
        line = torch.div(index, windows_x, rounding_mode="floor")
        x = (index - line * windows_x) // CUDA_TILE
        image = torch.div(line, windows_y, rounding_mode="floor")
        y = (line - image * windows_y) // CUDA_TILE
        key, order = ((image * tiles_y + y) * tiles_x + x).sort(stable=True)
        index, rows = index[order], rows[order]
        tiles, slots, sizes = torch.unique_consecutive(key, return_inverse=True, return_counts=True)
        ends = [0, *sizes.cumsum(0).tolist()]
        for first in range(0, len(tiles), most_tiles):
            last = min(first + most_tiles, len(tiles))
            here = slice(ends[first], ends[last])
            batch_tiles, batch_windows, batch_rows = tiles[first:last], index[here], rows[here]
            batch_slots = slots[here] - first
            if maps.numel() < (last - first) * tile_floats:
                maps = torch.empty((last - first) * tile_floats, dtype=torch.float32, device=device)
            core.score_windows_tiles(
                stack.address,
                *stack.geometry,
                size,
                program.rows,
                program.map_layers,
                parameters.data_ptr(),
                parameters.numel(),
                CUDA_TILE,
                batch_tiles.data_ptr(),
                len(batch_tiles),
                batch_windows.data_ptr(),
                batch_rows.data_ptr(),
                batch_slots.data_ptr(),
                len(batch_windows),
                maps.data_ptr(),
                out.data_ptr(),
                *strides,
                *launch,
                host_lanes,
                reversed_lanes,
            )
