"""Stand-in until the shared helpers arrive."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from t3ssfast import _core


# --------------------------------------------------------------------------------------------- sliding

# Edge of a tile of windows on a CUDA device: its halo costs 6% of a LeNet's dense work.
CUDA_TILE = 32
# Device memory that the feature maps of one batch of tiles may take, and windows sorted into tiles at once.
CUDA_WORKSPACE_BYTES = 256 << 20
CUDA_WINDOWS = 1 << 22


@dataclass(frozen=True)
class LayerProgram:
    """A chain of layers as the native kernel reads it (csrc/core/layers.h).

    Parameters
    ----------
    rows
        One a layer: kind, channels in and out, kernel y and x, step y and x, first parameter, parameters.
    map_layers
        How many of them work on feature maps; the next one is linear and begins the head.
    classes
        Answers a window.
    parameters
        (P,) float32.
    """

    rows: tuple[tuple[int, ...], ...]
    map_layers: int
    classes: int
    parameters: torch.Tensor


def score_windows(
    images: torch.Tensor,
    size: int,
    program: LayerProgram,
    windows: torch.Tensor | None,
    *,
    threads: int | None = None,
    host_lanes: int = 0,
    reversed_lanes: bool = False,
) -> torch.Tensor:
    """Answers of a chain of layers on every window, or on the windows asked for.

    Parameters
    ----------
    images
        (N, H, W) float32, C-contiguous.
    size
        Edge of a window.
    program
        The chain.
    windows
        (M,) int64, ascending flat indices into (N, H-size+1, W-size+1), on the same device; None for all.
    threads
        OpenMP threads; torch's number where None.
    host_lanes, reversed_lanes
        Where not 0, the CUDA schedule runs on the CPU, in blocks of so many lanes; for tests.

    Returns
    -------
    (M, C) float32, or (C, N, H-size+1, W-size+1) where windows is None.
    """
    count, height, width = images.shape
    shape = (count, height - size + 1, width - size + 1)
    if windows is None:
        out = torch.empty((program.classes, *shape), dtype=torch.float32, device=images.device)
        strides = (1, shape[0] * shape[1] * shape[2])
    else:
        out = torch.empty((len(windows), program.classes), dtype=torch.float32, device=images.device)
        strides = (program.classes, 1)
        if len(windows) == 0:  # an empty tensor has no address, which would stand for every window
            return out
    if images.device.type == "cuda" or host_lanes:
        _score_tiles(images, size, program, windows, out, strides, host_lanes, reversed_lanes)
        return out
    _core.score_windows_cpu(
        images.data_ptr(),
        count,
        height,
        width,
        size,
        program.rows,
        program.map_layers,
        program.parameters.data_ptr(),
        program.parameters.numel(),
        0 if windows is None else windows.data_ptr(),
        0 if windows is None else len(windows),
        out.data_ptr(),
        *strides,
        threads or torch.get_num_threads(),
    )
    return out


def _score_tiles(
    images: torch.Tensor,
    size: int,
    program: LayerProgram,
    windows: torch.Tensor | None,
    out: torch.Tensor,
    strides: tuple[int, int],
    host_lanes: int,
    reversed_lanes: bool,
) -> None:
    """Sorts windows into tiles and answers them a batch of tiles at a time."""
    device = images.device
    count, height, width = images.shape
    windows_y, windows_x = height - size + 1, width - size + 1
    tiles_y, tiles_x = -(-windows_y // CUDA_TILE), -(-windows_x // CUDA_TILE)
    parameters = program.parameters.to(device)
    tile_floats = _core.score_windows_tile_floats(program.rows, program.map_layers, CUDA_TILE)
    most_tiles = max(1, CUDA_WORKSPACE_BYTES // (4 * tile_floats))
    maps = torch.empty(0, dtype=torch.float32, device=device)
    device_index, stream = -1, 0
    if device.type == "cuda":
        device_index, stream = images.get_device(), torch.cuda.current_stream(device).cuda_stream
    asked = count * windows_y * windows_x if windows is None else len(windows)
    for begin in range(0, asked, CUDA_WINDOWS):
        rows = torch.arange(begin, min(begin + CUDA_WINDOWS, asked), device=device)
        index = rows if windows is None else windows[begin : begin + CUDA_WINDOWS]
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
            batch_tiles = tiles[first:last].contiguous()
            batch = [index[here].contiguous(), rows[here].contiguous(), slots[here] - first]
            if maps.numel() < (last - first) * tile_floats:
                maps = torch.empty((last - first) * tile_floats, dtype=torch.float32, device=device)
            _core.score_windows_tiles(
                images.data_ptr(),
                count,
                height,
                width,
                size,
                program.rows,
                program.map_layers,
                parameters.data_ptr(),
                parameters.numel(),
                CUDA_TILE,
                batch_tiles.data_ptr(),
                len(batch_tiles),
                *(tensor.data_ptr() for tensor in batch),
                here.stop - here.start,
                maps.data_ptr(),
                out.data_ptr(),
                *strides,
                device_index,
                stream,
                host_lanes,
                reversed_lanes,
            )


def unfold(images: torch.Tensor, size: int, windows: torch.Tensor) -> torch.Tensor:
    """Stand-in."""
    return images.unfold(1, size, 1).unfold(2, size, 1)[
        torch.unravel_index(windows, (images.shape[0], images.shape[1] - size + 1, images.shape[2] - size + 1))
    ]
