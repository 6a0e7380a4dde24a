"""The SIMT path of score_windows on any CUDA device, one batch of tiles at a time."""

from __future__ import annotations

import torch

from t3ssfast.kernels._native.extension import core, current_device
from t3ssfast.kernels._native.images import ImageStack
from t3ssfast.kernels._native.layer_program import LayerProgram
from t3ssfast.kernels._native.windows import Windows

__all__ = ["score_windows_simt"]

# Edge of a tile in windows: its overlap with neighbouring tiles costs 6% of a LeNet's work on every window.
CUDA_TILE = 32
# Device memory for the feature maps of one batch of tiles.
CUDA_WORKSPACE_BYTES = 256 << 20
# Windows sorted into tiles at once.
CUDA_WINDOWS = 1 << 22


def score_windows_simt(
    stack: ImageStack,
    size: int,
    program: LayerProgram,
    windows: Windows,
    out: torch.Tensor,
    strides: tuple[int, int],
    host_lanes: int,
    reversed_lanes: bool,
) -> None:
    """Sort windows into tiles and score them one batch of tiles at a time; writes to `out`."""
    device = stack.device
    windows_y, windows_x = windows.shape[-2:]
    tiles_y, tiles_x = -(-windows_y // CUDA_TILE), -(-windows_x // CUDA_TILE)
    parameters = program.on_device(device)
    tile_floats = core.score_windows_simt_tile_floats(program.rows, program.map_layers, CUDA_TILE)
    max_tiles = max(1, CUDA_WORKSPACE_BYTES // (4 * tile_floats))
    feature_maps = torch.empty(0, dtype=torch.float32, device=device)
    with current_device(device) as launch:
        for begin in range(0, windows.count, CUDA_WINDOWS):
            output_rows = torch.arange(begin, min(begin + CUDA_WINDOWS, windows.count), device=device)
            index = output_rows if windows.index is None else windows.index[begin : begin + CUDA_WINDOWS]
            window_row = torch.div(index, windows_x, rounding_mode="floor")
            x = (index - window_row * windows_x) // CUDA_TILE
            image = torch.div(window_row, windows_y, rounding_mode="floor")
            y = (window_row - image * windows_y) // CUDA_TILE
            tile_index, order = ((image * tiles_y + y) * tiles_x + x).sort(stable=True)
            index, output_rows = index[order], output_rows[order]
            tiles, slots, sizes = torch.unique_consecutive(
                tile_index, return_inverse=True, return_counts=True
            )
            ends = [0, *sizes.cumsum(0).tolist()]
            for first in range(0, len(tiles), max_tiles):
                last = min(first + max_tiles, len(tiles))
                batch = slice(ends[first], ends[last])
                batch_tiles, batch_windows, batch_rows = tiles[first:last], index[batch], output_rows[batch]
                batch_slots = slots[batch] - first
                if feature_maps.numel() < (last - first) * tile_floats:
                    feature_maps = torch.empty(
                        (last - first) * tile_floats, dtype=torch.float32, device=device
                    )
                core.score_windows_simt(
                    stack.native,
                    size,
                    program.native(parameters),
                    CUDA_TILE,
                    batch_tiles.data_ptr(),
                    len(batch_tiles),
                    batch_windows.data_ptr(),
                    batch_rows.data_ptr(),
                    batch_slots.data_ptr(),
                    len(batch_windows),
                    feature_maps.data_ptr(),
                    (out.data_ptr(), *strides),
                    launch,
                    host_lanes,
                    reversed_lanes,
                )
