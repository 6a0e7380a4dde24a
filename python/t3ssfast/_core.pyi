from collections.abc import Sequence
from typing import Any

# ------------------------------------------------------------------------------------------------ build
def build_info() -> dict[str, Any]: ...

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
def emulate_unfold(
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

# ------------------------------------------------------------------------------------ window_statistics
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
) -> int | None: ...
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
def emulate_window_statistics(
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
def first_nonfinite(values: int, count: int, threads: int, /) -> int | None: ...

# ---------------------------------------------------------------------------------------- score_windows
class PreparedProgram: ...

def prepare_program(
    layers: Sequence[tuple[int, ...]],
    map_layers: int,
    parameters: int,
    parameter_count: int,
    size: int,
    winograd_min_windows: int,
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
def score_windows_simt_tile_floats(
    layers: Sequence[tuple[int, ...]], map_layers: int, tile: int, /
) -> int: ...
def score_windows_simt(
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
    output_rows: int,
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
def score_windows_tensor_core_layout(
    layers: Sequence[tuple[int, ...]],
    map_layers: int,
    precision: int,
    device: int,
    tile_bytes: int,
    fully_connected_bytes: int,
    wide: bool,
    /,
) -> tuple[int, int, int, int, int, int]: ...
def score_windows_tensor_core(
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
    range: Sequence[int],
    tile: Sequence[int],
    packed_weights: int,
    pack: bool,
    feature_maps: int,
    needed_tiles: int,
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
def fragment_layout(lane: int, /) -> list[list[tuple[int, int]]]: ...
def multiply_fragments(precision: int, a: int, b: int, d: int, /) -> None: ...
def convert_to_operands(precision: int, values: int, count: int, operands: int, /) -> None: ...
