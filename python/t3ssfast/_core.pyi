from collections.abc import Sequence
from typing import Any

# ------------------------------------------------------------------------------------------------ build
def build_info() -> dict[str, Any]: ...

# The CUDA half's block algorithms, run on the host by a number of lanes, for the tests.
def block_unfold(
    images: int,
    count: int,
    height: int,
    width: int,
    size: int,
    zscore: bool,
    element: int,
    windows: int,
    window_count: int,
    out: int,
    lanes: int,
    reversed: bool,
    /,
) -> None: ...
def block_window_statistics(
    images: int,
    count: int,
    height: int,
    width: int,
    size: int,
    requests: Sequence[tuple[int, float]],
    windows: int,
    window_count: int,
    out: int,
    lanes: int,
    reversed: bool,
    panel: int,
    /,
) -> None: ...

# ----------------------------------------------------------------------------------------------- unfold
def unfold_cpu(
    images: int,
    count: int,
    height: int,
    width: int,
    size: int,
    zscore: bool,
    element: int,
    windows: int,
    window_count: int,
    out: int,
    stream: bool,
    threads: int,
    /,
) -> None: ...
def unfold_cuda(
    images: int,
    count: int,
    height: int,
    width: int,
    size: int,
    zscore: bool,
    element: int,
    windows: int,
    window_count: int,
    out: int,
    device: int,
    stream: int,
    /,
) -> None: ...

# ------------------------------------------------------------------------------------------- statistics
def window_statistics_cpu(
    images: int,
    count: int,
    height: int,
    width: int,
    size: int,
    requests: Sequence[tuple[int, float]],
    windows: int,
    window_count: int,
    out: int,
    stream: bool,
    check: bool,
    threads: int,
    /,
) -> int: ...
def window_statistics_workspace_cuda(
    count: int, height: int, width: int, size: int, requests: Sequence[tuple[int, float]], device: int, /
) -> int: ...
def window_statistics_cuda(
    images: int,
    count: int,
    height: int,
    width: int,
    size: int,
    requests: Sequence[tuple[int, float]],
    windows: int,
    window_count: int,
    out: int,
    workspace: int,
    workspace_bytes: int,
    device: int,
    stream: int,
    /,
) -> None: ...
def first_nonfinite(values: int, count: int, threads: int, /) -> int: ...

# ---------------------------------------------------------------------------------------------- sliding
class PreparedProgram: ...

def prepare_program(
    layers: Sequence[tuple[int, ...]],
    map_layers: int,
    parameters: int,
    parameter_count: int,
    size: int,
    least_of_nine: int,
    level: int,
    /,
) -> PreparedProgram: ...
def score_windows_cpu(
    images: int,
    count: int,
    height: int,
    width: int,
    size: int,
    program: PreparedProgram,
    windows: int,
    window_count: int,
    out: int,
    window_stride: int,
    class_stride: int,
    threads: int,
    /,
) -> None: ...
def score_windows_tile_floats(layers: Sequence[tuple[int, ...]], map_layers: int, tile: int, /) -> int: ...
def score_windows_tiles(
    images: int,
    count: int,
    height: int,
    width: int,
    size: int,
    layers: Sequence[tuple[int, ...]],
    map_layers: int,
    parameters: int,
    parameter_count: int,
    tile: int,
    tiles: int,
    tile_count: int,
    windows: int,
    window_rows: int,
    slots: int,
    window_count: int,
    maps: int,
    out: int,
    window_stride: int,
    class_stride: int,
    device: int,
    stream: int,
    lanes: int,
    reversed: bool,
    /,
) -> None: ...
def score_windows_warp_layout(
    layers: Sequence[tuple[int, ...]],
    map_layers: int,
    precision: int,
    device: int,
    tile_bytes: int,
    head_bytes: int,
    wide: bool,
    /,
) -> tuple[str, int, int, int, int, int, int]: ...
def score_windows_warps(
    images: int,
    count: int,
    height: int,
    width: int,
    size: int,
    layers: Sequence[tuple[int, ...]],
    map_layers: int,
    parameters: int,
    parameter_count: int,
    precision: int,
    planes: Sequence[int],
    tile: Sequence[int],
    packed: int,
    pack: bool,
    maps: int,
    touched: int,
    windows: int,
    first_window: int,
    window_count: int,
    out: int,
    window_stride: int,
    class_stride: int,
    device: int,
    stream: int,
    lanes: int,
    reversed: bool,
    late: bool,
    wide: bool,
    /,
) -> None: ...
def fragment_places(lane: int, /) -> list[list[tuple[int, int]]]: ...
def multiply_fragments(precision: int, a: int, b: int, d: int, /) -> None: ...
def convert_values(precision: int, values: int, count: int, terms: int, /) -> None: ...
