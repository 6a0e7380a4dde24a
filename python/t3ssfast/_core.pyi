from collections.abc import Sequence
from typing import Any

# Arguments of the native kernels; an array is its address.
_Images = tuple[int, int, int, int]  # address, count, height, width
_Windows = tuple[int, int]  # address, count; address 0 means every window
_Scores = tuple[int, int, int]  # address, stride of windows, stride of classes
_Launch = tuple[int, int]  # device index, stream handle
_Requests = Sequence[tuple[int, float]]  # number of a statistic, quantile
_Rows = Sequence[tuple[int, ...]]  # layers
_Program = tuple[_Rows, int, int, int]  # layers, layers on feature maps, address and number of parameters
_Slices = tuple[int, int, int]  # slice below, slice, slice above
_Weights = tuple[float, float, float]
_Blocks = tuple[int, bool, bool, bool]  # lanes, reversed, late, wide

def build_info() -> dict[str, Any]: ...

# ----------------------------------------------------------------------------------------------- unfold
def unfold_cpu(
    images: _Images,
    size: int,
    zscore: bool,
    element: int,
    windows: _Windows,
    out: int,
    stream: bool,
    threads: int,
    /,
) -> None: ...
def unfold_cuda(
    images: _Images, size: int, zscore: bool, element: int, windows: _Windows, out: int, launch: _Launch, /
) -> None: ...
def emulate_unfold(
    images: _Images,
    size: int,
    zscore: bool,
    element: int,
    windows: _Windows,
    out: int,
    lanes: int,
    reverse: bool,
    /,
) -> None: ...

# ------------------------------------------------------------------------------------ window_statistics
def window_statistics_cpu(
    images: _Images,
    size: int,
    requests: _Requests,
    windows: _Windows,
    out: int,
    stream: bool,
    check: bool,
    threads: int,
    /,
) -> int | None: ...
def window_statistics_workspace_cuda(
    images: _Images, size: int, requests: _Requests, device: int, /
) -> int: ...
def window_statistics_cuda(
    images: _Images,
    size: int,
    requests: _Requests,
    windows: _Windows,
    out: int,
    workspace: int,
    workspace_bytes: int,
    first_nonfinite: int,
    launch: _Launch,
    /,
) -> None: ...
def emulate_window_statistics(
    images: _Images,
    size: int,
    requests: _Requests,
    windows: _Windows,
    out: int,
    lanes: int,
    reverse: bool,
    strip_rows: int,
    ring: bool,
    /,
) -> None: ...
def first_nonfinite(values: int, count: int, threads: int, /) -> int | None: ...
def first_nonfinite_cuda(values: int, count: int, first: int, launch: _Launch, /) -> None: ...

# ---------------------------------------------------------------------------------------- score_windows
class PreparedProgram:
    @property
    def window_stride(self) -> int: ...

def prepare_program(
    program: _Program, size: int, winograd_min_windows: int, level: int, stride: int, /
) -> PreparedProgram: ...
def score_windows_cpu(
    images: _Images, size: int, program: PreparedProgram, windows: _Windows, out: _Scores, threads: int, /
) -> None: ...
def score_windows_simt_tile_floats(layers: _Rows, map_layers: int, tile: int, /) -> int: ...
def score_windows_simt(
    images: _Images,
    size: int,
    program: _Program,
    tile: int,
    tiles: int,
    tile_count: int,
    windows: int,
    output_rows: int,
    slots: int,
    window_count: int,
    feature_maps: int,
    out: _Scores,
    launch: _Launch,
    lanes: int,
    reverse: bool,
    /,
) -> None: ...
def score_windows_tensor_core_layout(
    layers: _Rows,
    map_layers: int,
    precision: int,
    device: int,
    tile_bytes: int,
    fully_connected_bytes: int,
    wide: bool,
    block_lanes: int,
    /,
) -> tuple[int, int, int, int, int, int]: ...
def score_windows_tensor_core(
    images: _Images,
    size: int,
    program: _Program,
    precision: int,
    batch: tuple[int, int, int, int],
    tile: tuple[int, int],
    packed_weights: int,
    pack: bool,
    feature_maps: int,
    needed_tiles: int,
    windows: int,
    first_window: int,
    window_count: int,
    out: _Scores,
    launch: _Launch,
    blocks: _Blocks,
    /,
) -> None: ...
def fragment_layout(lane: int, /) -> list[list[tuple[int, int]]]: ...
def multiply_fragments(precision: int, a: int, b: int, d: int, /) -> None: ...
def convert_to_operands(precision: int, values: int, count: int, operands: int, /) -> None: ...

# ------------------------------------------------------------------------------------ probability_levels
def probability_levels_cpu(
    slices: _Slices, weights: _Weights, count: int, out: int, threads: int, /
) -> bool: ...
def probability_levels_cuda(
    slices: _Slices, weights: _Weights, count: int, out: int, first_nonfinite: int, launch: _Launch, /
) -> None: ...

# --------------------------------------------------------------------------------------------- masks
def near_mask_cpu(mask: _Images, first: int, end: int, limit: int, out: int, threads: int, /) -> None: ...

# Addresses of indices and values, their count, height, width.
_Voxels = tuple[int, int, int, int, int]

def ascend_cpu(index: int, count: int, threads: int, /) -> bool: ...
def mark_columns_cpu(voxels: _Voxels, floor: float, columns: int, threads: int, /) -> None: ...
def widen_columns_cpu(
    planes: Sequence[int], height: int, width: int, reach: int, out: int, threads: int, /
) -> None: ...
def count_kept_cpu(voxels: _Voxels, columns: int, floor: float, threads: int, /) -> list[int]: ...
def write_kept_cpu(
    voxels: _Voxels, columns: int, floor: float, starts: int, index: int, value: int, threads: int, /
) -> None: ...
def smooth_along_cpu(
    voxels: _Voxels,
    axis: int,
    kernel: tuple[int, int, int],
    out: int,
    threads: int,
    /,
) -> None: ...
def local_maxima_cpu(voxels: _Voxels, threshold: float, threads: int, /) -> list[int]: ...
def centroids_cpu(
    voxels: _Voxels, peaks: int, count: int, radius: int, out: int, threads: int, /
) -> None: ...
def count_levels_cpu(levels: int, count: int, counts: int, threads: int, /) -> None: ...
def threshold_levels_cpu(levels: int, count: int, lower: int, upper: int, threads: int, /) -> None: ...
def count_nonzero_cpu(mask: int, count: int, length: int, counts: int, threads: int, /) -> None: ...
def list_nonzero_cpu(
    mask: int, count: int, length: int, starts: int, index: int, threads: int, /
) -> None: ...

# Addresses of the marks of each plane, side.
_Squares = tuple[Sequence[int], int]

def keep_in_squares_cpu(
    mask: _Images, offset: int, thickness: int, squares: Sequence[_Squares], out: int, threads: int, /
) -> None: ...
def mark_high_sums_cpu(
    images: Sequence[int], weights: Sequence[float], count: int, limit: float, marks: int, threads: int, /
) -> None: ...

class MaskComponents:
    def __init__(self, height: int, width: int, above: int, /) -> None: ...
    def add(self, slices: int, count: int, threads: int, /) -> None: ...
    def faces(self) -> list[int]: ...
    def lower(
        self, slices: int, first: int, count: int, kept: int, kept_count: int, threads: int, /
    ) -> None: ...

# Voxels, step, spacing, addresses of weights, radius, addresses of positions and boxes, number of boxes.
_EdgeAxis = tuple[int, int, float, int, int, int, int, int]

class MaskEdges:
    def __init__(
        self, mask: int, z: _EdgeAxis, y: _EdgeAxis, x: _EdgeAxis, min_squared: float, threads: int, /
    ) -> None: ...
    def count(self) -> int: ...
    def write(self, box: int, rows: int, threads: int, /) -> None: ...
