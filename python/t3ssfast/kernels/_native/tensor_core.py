"""The tensor-core path of score_windows on a CUDA device, one batch of images at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from t3ssfast.kernels._native.extension import core, current_device, device_index
from t3ssfast.kernels._native.images import ImageStack
from t3ssfast.kernels._native.layer_program import LayerProgram
from t3ssfast.kernels._native.windows import Windows

__all__ = ["HostWarps", "TensorCoreLayout", "score_windows_tensor_core"]

# Device memory for the feature maps of one batch of images: enough windows for several waves of blocks even
# where a mask requests few.
CUDA_MAP_BYTES = 512 << 20
_PRECISIONS = {"float32": 0, "tf32": 1, "bfloat16": 2}


@dataclass(frozen=True)
class HostWarps:
    """How blocks of warps are emulated on the host, for tests.

    Parameters
    ----------
    lanes
        Lanes per block: a multiple of 32, or of 64 if not `wide`.
    reversed
        Whether warps and lanes run in reversed order.
    late
        Whether asynchronous copies complete as late as allowed.
    wide
        Whether a warp computes all columns of 32 rows of a fully connected layer, or half the columns of
        64 rows.
    tile_bytes, fully_connected_bytes
        Shared memory for a tile of feature maps, and for the fully connected layers.
    """

    lanes: int
    reversed: bool = False
    late: bool = False
    wide: bool = True
    tile_bytes: int = 64 << 10
    fully_connected_bytes: int = 99 << 10


@dataclass(frozen=True)
class TensorCoreLayout:
    """Memory layout of a program on tensor cores.

    Parameters
    ----------
    precision
        Native number of the number format.
    packed_words
        32-bit words of the packed weights.
    pixel_words
        32-bit words per pixel of the feature map.
    reach_y, reach_x
        Rows and columns of the feature map beyond those of the windows.
    tile
        (rows, columns) of a tile of the feature map.
    """

    precision: int
    packed_words: int
    pixel_words: int
    reach_y: int
    reach_x: int
    tile: tuple[int, int]

    @classmethod
    def of(
        cls,
        program: LayerProgram,
        precision: str,
        device: torch.device,
        block_lanes: int,
        host: HostWarps | None,
    ) -> TensorCoreLayout:
        """Return the layout of a program on a device, or on emulated warps.

        `block_lanes` is the number of threads per block of the fully connected layers; where it is 0, the
        device decides.

        Raises
        ------
        ValueError
            If the program or the device does not support tensor cores.
        """
        number = _PRECISIONS[precision]
        index = device_index(device) if host is None else -1
        limits: tuple[int, int, bool, int] = (0, 0, False, block_lanes)
        if host is not None:
            limits = (host.tile_bytes, host.fully_connected_bytes, host.wide, host.lanes)
        packed_words, pixel_words, reach_y, reach_x, *tile = core.score_windows_tensor_core_layout(
            program.rows, program.map_layers, number, index, *limits
        )
        return cls(number, packed_words, pixel_words, reach_y, reach_x, (tile[0], tile[1]))


def _map_batches(
    stack: ImageStack, windows: Windows, rows: int, reach_y: int, row_bytes: int
) -> list[tuple[int, int, int, int]]:
    """Return batches (first image, images, first row, rows) whose feature maps fit CUDA_MAP_BYTES."""
    images = len(stack.data)
    images_per_batch = CUDA_MAP_BYTES // (row_bytes * (rows + reach_y))
    if images_per_batch >= 1:
        return [(z, min(images_per_batch, images - z), 0, rows) for z in range(0, images, images_per_batch)]
    batch_rows = max(1, CUDA_MAP_BYTES // row_bytes - reach_y)
    return [(z, 1, y, min(batch_rows, rows - y)) for z in range(images) for y in range(0, rows, batch_rows)]


def score_windows_tensor_core(
    stack: ImageStack,
    size: int,
    program: LayerProgram,
    windows: Windows,
    out: torch.Tensor,
    strides: tuple[int, int],
    layout: TensorCoreLayout,
    block_lanes: int,
    host: HostWarps | None,
) -> None:
    """Score windows on tensor cores, one batch of images at a time; writes to `out`."""
    device = stack.device
    windows_y, windows_x = windows.shape[-2:]
    parameters = program.on_device(device)
    packed_weights = torch.empty(layout.packed_words, dtype=torch.int32, device=device)
    row_words = (windows_x + layout.reach_x) * layout.pixel_words
    batches = _map_batches(stack, windows, windows_y, layout.reach_y, 4 * row_words)
    image_words = (max(rows for *_, rows in batches) + layout.reach_y) * row_words
    feature_maps = torch.empty(max(n for _, n, *_ in batches) * image_words, dtype=torch.int32, device=device)
    # The windows of a batch are consecutive in C order, listed or not.
    ends = torch.tensor([(z * windows_y + y) * windows_x for z, _, y, _ in batches] + [windows.count])
    if windows.index is not None:
        ends[:-1] = torch.searchsorted(windows.index, ends[:-1].to(device)).cpu()
    blocks = HostWarps(block_lanes) if host is None else host
    pack = True
    with current_device(device) as launch:
        for batch, first, last in zip(batches, ends[:-1].tolist(), ends[1:].tolist(), strict=True):
            if first == last:
                continue
            needed_tiles = None
            if windows.index is not None:
                tiles_y = -(-(batch[3] + layout.reach_y) // layout.tile[0])
                tiles_x = -(-(windows_x + layout.reach_x) // layout.tile[1])
                needed_tiles = torch.zeros(batch[1] * tiles_y * tiles_x, dtype=torch.uint8, device=device)
            core.score_windows_tensor_core(
                stack.native,
                size,
                program.native(parameters),
                layout.precision,
                batch,
                layout.tile,
                packed_weights.data_ptr(),
                pack,
                feature_maps.data_ptr(),
                0 if needed_tiles is None else needed_tiles.data_ptr(),
                windows.native[0],
                first,
                last - first,
                (out.data_ptr(), *strides),
                launch,
                (blocks.lanes, blocks.reversed, blocks.late, blocks.wide),
            )
            pack = False
