"""The only door to the native kernels: checks and converts arrays, allocates results, passes addresses.

Everything that reaches `_core` has been checked here, so the kernels check nothing. Each family of kernels
has one function; what they share (stacks of images, lists of windows, results of the caller's kind) comes
first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

# PyTorch first: it brings the OpenMP runtime that _core shares with it.
import torch

from t3ssfast import _core, pages
from t3ssfast.errors import DeviceError, InputError

__all__ = [
    "STATISTICS",
    "Array",
    "HostWarps",
    "ImageStack",
    "LayerProgram",
    "Windows",
    "as_stack",
    "as_windows",
    "build_info",
    "check_out",
    "check_size",
    "openvino_version",
    "score_windows",
    "to_caller",
    "unfold",
    "window_statistics",
]

Array: TypeAlias = npt.NDArray[Any] | torch.Tensor

STATISTICS = (
    "mean",
    "std",
    "variance",
    "skewness",
    "kurtosis",
    "energy",
    "min",
    "max",
    "range",
    "median",
)
"""Names of the statistics in the order of the native enumeration; quantiles ("q05") come on top."""

_ELEMENTS = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
_QUANTILE = len(STATISTICS)


# ------------------------------------------------------------------------------------ images and windows


@dataclass(frozen=True)
class ImageStack:
    """Images of one call, as the kernels read them.

    Parameters
    ----------
    data
        (N, H, W) float32, C-contiguous, finite; a tensor or an array that owns or shares the pixels.
    shape
        Of the caller's array: (H, W) or (N, H, W).
    device
        Where the pixels are.
    is_numpy
        Whether the caller gave, and gets, NumPy arrays.
    """

    data: Array
    shape: tuple[int, ...]
    device: torch.device
    is_numpy: bool

    @property
    def address(self) -> int:
        """Address of the first pixel."""
        return self.data.data_ptr() if isinstance(self.data, torch.Tensor) else int(self.data.ctypes.data)

    @property
    def geometry(self) -> tuple[int, int, int]:
        """(N, H, W)."""
        count, height, width = self.data.shape
        return int(count), int(height), int(width)

    def window_shape(self, size: int) -> tuple[int, ...]:
        """Shape of the valid windows: the caller's shape, H and W shortened by size - 1."""
        *leading, height, width = self.shape
        return (*leading, height - size + 1, width - size + 1)


@dataclass(frozen=True)
class Windows:
    """Windows asked for: all of them (index is None), or M flat indices, ascending, on the images' device."""

    shape: tuple[int, ...]
    index: torch.Tensor | None

    @property
    def count(self) -> int:
        """Number of windows asked for."""
        return int(np.prod(self.shape, dtype=np.int64)) if self.index is None else len(self.index)

    @property
    def address(self) -> int:
        """Address of the indices; 0 stands for every window."""
        return 0 if self.index is None else self.index.data_ptr()


def _check_device(device: torch.device, name: str) -> None:
    if device.type == "cpu":
        return
    if device.type != "cuda":
        raise DeviceError(f"{name} is on device {device}; move it to the CPU or to a CUDA device.")
    info = _core.build_info()
    if not info["cuda_devices"]:
        raise DeviceError(
            f"{name} is on device {device}, but the CUDA kernels cannot run ({info['cuda_problem']}); "
            "move it to the CPU."
        )


def _refuse_nonfinite(data: Array, given: Array, name: str, shape: tuple[int, ...]) -> None:
    if isinstance(data, torch.Tensor) and data.device.type == "cuda":
        bad = torch.logical_not(torch.isfinite(data)).reshape(-1)
        first = int(torch.argmax(bad.to(torch.uint8))) if bool(bad.any()) else -1
    else:
        address = data.data_ptr() if isinstance(data, torch.Tensor) else int(data.ctypes.data)
        first = _core.first_nonfinite(address, int(np.prod(shape, dtype=np.int64)), torch.get_num_threads())
    if first < 0:
        return
    where = tuple(int(i) for i in np.unravel_index(first, shape))
    value = float(given[where])
    beyond = " (beyond float32)" if np.isfinite(value) else ""
    raise InputError(
        f"{name} holds {value:g}{beyond} at index {where}; replace or crop values that are not finite."
    )


def as_stack(image: Array, *, name: str = "image") -> ImageStack:
    """Images as the kernels read them: float32, C-contiguous, finite.

    Values of any real dtype are rounded to float32, so float64 values (and integers above 2^24) keep about
    seven digits: subtract a large offset first where the digits behind it matter. Copies only where dtype or
    layout ask for it.

    Parameters
    ----------
    image
        (H, W) or (N, H, W), NumPy or torch, any real dtype (bool included), any layout.
    name
        For messages.

    Raises
    ------
    InputError
        If it is no such array, has an empty axis, or holds NaN or Inf; says where.
    DeviceError
        If it is on a device that the kernels cannot use.
    """
    if not isinstance(image, np.ndarray | torch.Tensor):
        raise InputError(f"{name} is of type {type(image).__name__}; give a NumPy array or a torch tensor.")
    shape = tuple(int(n) for n in image.shape)
    if len(shape) not in (2, 3):
        raise InputError(f"{name} has shape {shape}; give (H, W), or (N, H, W) for a stack.")
    if min(shape[-2:]) == 0:
        raise InputError(f"{name} has shape {shape}, without a pixel; give an image of at least 1 x 1.")
    data: Array
    if isinstance(image, torch.Tensor):
        if image.is_complex() or image.is_quantized or image.layout != torch.strided:
            raise InputError(f"{name} is a {image.dtype} tensor; give a dense one of real numbers.")
        _check_device(image.device, name)
        device, data = image.device, image.detach().to(torch.float32).contiguous()
        data = data.resolve_neg().reshape(-1, *shape[-2:])
    else:
        if image.dtype.kind not in "biuf":
            raise InputError(f"{name} has dtype {image.dtype}; give real numbers.")
        device = torch.device("cpu")
        with np.errstate(over="ignore"):
            data = np.ascontiguousarray(image, dtype=np.float32).reshape(-1, *shape[-2:])
    if image.dtype not in (np.uint8, np.int8, np.uint16, np.int16, torch.uint8, torch.int8, torch.int16):
        _refuse_nonfinite(data, image, name, shape)
    return ImageStack(data, shape, device, isinstance(image, np.ndarray))


def check_size(size: int, stack: ImageStack, *, name: str = "image") -> int:
    """Edge of a window, if the images have room for one."""
    if isinstance(size, bool) or not isinstance(size, int | np.integer):
        raise InputError(f"size is {size!r}; give the edge of a window as a whole number of pixels.")
    height, width = stack.shape[-2:]
    if size < 1:
        raise InputError(f"size is {size}; give 1 or more pixels.")
    if size > min(height, width):
        raise InputError(
            f"{name} is {height} x {width} pixels, smaller than one window of {size} x {size}; "
            "give a larger image or a smaller size."
        )
    return int(size)


def as_windows(stack: ImageStack, size: int, mask: Array | None) -> Windows:
    """The windows that a mask asks for; every valid one where it is None.

    Parameters
    ----------
    stack, size
        Images and edge of a window.
    mask
        (..., H-size+1, W-size+1), NumPy or torch, index = top-left corner; not zero where a window is wanted.

    Raises
    ------
    InputError
        If the mask has another shape.
    """
    shape = stack.window_shape(size)
    if mask is None:
        return Windows(shape, None)
    if not isinstance(mask, np.ndarray | torch.Tensor):
        raise InputError(f"mask is of type {type(mask).__name__}; give a NumPy array or a torch tensor.")
    if tuple(mask.shape) != shape:
        raise InputError(
            f"mask has shape {tuple(mask.shape)}, but the valid windows of {size} pixels have shape {shape}; "
            "give one entry for each top-left corner."
        )
    if isinstance(mask, torch.Tensor):
        index = torch.nonzero(mask.detach().reshape(-1)).reshape(-1)
    else:
        index = torch.from_numpy(np.flatnonzero(mask))
    return Windows(shape, index.to(device=stack.device, dtype=torch.int64).contiguous())


def check_out(out: Array, shape: tuple[int, ...], dtype: torch.dtype, stack: ImageStack) -> torch.Tensor:
    """The caller's memory for a result, if it can be written as it is.

    Parameters
    ----------
    out
        Given by the caller.
    shape, dtype
        Of the result.
    stack
        The images: the result is of their kind, on their device.

    Raises
    ------
    InputError
        If it is of another kind, shape, dtype or device, or not plain writable memory.
    """
    if isinstance(out, np.ndarray) != stack.is_numpy or not isinstance(out, np.ndarray | torch.Tensor):
        wanted = "a NumPy array" if stack.is_numpy else "a torch tensor"
        raise InputError(f"out is of type {type(out).__name__}; give {wanted}, like the image.")
    if isinstance(out, np.ndarray):
        if not out.flags.c_contiguous or not out.flags.writeable:
            raise InputError("out is read-only or not C-contiguous; give a plain array that can be written.")
        tensor = torch.from_numpy(out) if out.dtype.kind == "f" else torch.empty(0, dtype=torch.int64)
    else:
        if not out.is_contiguous() or out.requires_grad:
            raise InputError("out is not contiguous, or requires a gradient; give a plain tensor.")
        tensor = out
    if tuple(out.shape) != shape or tensor.dtype != dtype or tensor.device != stack.device:
        raise InputError(
            f"out has shape {tuple(out.shape)} and dtype {out.dtype} on {tensor.device}; "
            f"give shape {shape} and dtype {str(dtype).removeprefix('torch.')} on {stack.device}."
        )
    return tensor


def to_caller(result: torch.Tensor, stack: ImageStack) -> Array:
    """A result as the kind of array that the caller gave."""
    return result.numpy() if stack.is_numpy else result


def launch_of(device: torch.device) -> tuple[int, int]:
    """Device index and handle of PyTorch's current stream there."""
    index = torch.cuda.current_device() if device.index is None else device.index
    return index, int(torch.cuda.current_stream(index).cuda_stream)


def build_info() -> dict[str, Any]:
    """What was built, and what was found on this machine.

    Returns
    -------
    compiler, openmp (its date), simd (the instruction set in use), simd_levels (those that `score_windows`
    can be held to, the best one last), cuda (whether the kernels were built), cuda_architectures,
    cuda_devices (how many can be used now), cuda_problem (why none), torch, threads, openvino (its version,
    None where it is not installed).
    """
    info = _core.build_info()
    levels = list(SIMD[: info.pop("simd_level") + 1])
    return {
        **info,
        "simd_levels": levels,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "openvino": openvino_version(),
    }


@cache
def openvino_version() -> str | None:
    """Version of the installed OpenVINO, by which segmenters can run; None where there is none.

    It is looked up without an import, which would report over the network.
    """
    try:
        return version("openvino")
    except PackageNotFoundError:
        return None


# ------------------------------------------------------------------------------------------------ unfold

# Outputs of which nothing is left in the caches at the end: written past them, a line is not read before it
# is overwritten, which is a third faster than a plain copy. Pages that the system has just cleared are in
# the caches, so new memory is written through them.
STREAM_BYTES = 32 << 20


def empty_windows(
    shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor, bool]:
    """Memory for windows, and whether it has been used before; on a CPU in huge pages (`pages`)."""
    if device.type != "cpu":
        return torch.empty(shape, dtype=dtype, device=device), False
    memory, used = pages.empty(shape, np.float32 if dtype is torch.float32 else np.int16)
    return torch.from_numpy(memory).view(dtype), used


def unfold(
    stack: ImageStack,
    size: int,
    windows: Windows,
    *,
    zscore: bool,
    out: torch.Tensor,
    stream: bool = False,
    threads: int | None = None,
) -> None:
    """Write windows one after the other into `out`.

    Parameters
    ----------
    stack, size, windows
        Images, edge of a window, and which windows.
    zscore
        Whether each window is brought to mean 0 and standard deviation 1.
    out
        (M, size, size) float32, float16 or bfloat16, C-contiguous, on the images' device.
    stream
        On a CPU: whether to write past the caches; see `STREAM_BYTES`.
    threads
        OpenMP threads; PyTorch's number where None.
    """
    if windows.count == 0:
        return
    element = _ELEMENTS[out.dtype]
    arguments = (
        stack.address,
        *stack.geometry,
        size,
        zscore,
        element,
        windows.address,
        windows.count,
        out.data_ptr(),
    )
    if stack.device.type == "cuda":
        _core.unfold_cuda(*arguments, *launch_of(stack.device))
    else:
        _core.unfold_cpu(*arguments, stream, threads or torch.get_num_threads())


# -------------------------------------------------------------------------------------------- statistics


def _request(name: str) -> tuple[int, float]:
    if name in STATISTICS:
        return STATISTICS.index(name), 0.5
    if isinstance(name, str) and name[:1] == "q" and name[1:].isdecimal() and int(name[1:]) <= 100:
        return _QUANTILE, int(name[1:]) / 100
    raise InputError(
        f"statistic {name!r} is not known; give names out of {', '.join(STATISTICS)}, "
        "or q00 to q100 for a quantile."
    )


# As `STREAM_BYTES`, for statistics, which look at the image again for every family of them.
STREAM_STATISTICS_BYTES = 16 << 20


def _empty(shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """An uninitialised float32 result; on the CPU in NumPy's memory, which asks for huge pages.

    Tiles write to many places at once: in small pages the first touch of a result took a third of the time.
    """
    if device.type == "cpu":
        return torch.from_numpy(np.empty(shape, np.float32))
    return torch.empty(shape, dtype=torch.float32, device=device)


def window_statistics(
    stack: ImageStack,
    size: int,
    statistics: Sequence[str],
    windows: Windows,
    *,
    out: Array | None = None,
    threads: int | None = None,
) -> torch.Tensor:
    """Statistics of windows.

    Parameters
    ----------
    stack, size, windows
        Images, edge of a window, and which windows.
    statistics
        Names: those of `STATISTICS`, or "qNN".
    out
        Memory of the result's shape, as the caller gave it; new memory where None. On a CPU it is written
        past the caches from `STREAM_STATISTICS_BYTES` on.
    threads
        OpenMP threads; PyTorch's number where None.

    Returns
    -------
    (S, ..., H-size+1, W-size+1) float32, or (S, M) where windows are listed; on the images' device.

    Raises
    ------
    InputError
        If a name is not known, none is given, or `out` cannot be used.
    """
    requests = [_request(name) for name in statistics]
    if not requests:
        raise InputError("statistics is empty; give at least one name.")
    shape = windows.shape if windows.index is None else (windows.count,)
    shape = (len(requests), *shape)
    target = _empty(shape, stack.device) if out is None else check_out(out, shape, torch.float32, stack)
    if windows.count == 0:
        return target
    arguments = (
        stack.address,
        *stack.geometry,
        size,
        requests,
        windows.address,
        windows.count,
        target.data_ptr(),
    )
    if stack.device.type == "cuda":
        device, stream = launch_of(stack.device)
        needed = _core.window_statistics_workspace_cuda(*stack.geometry, size, requests, device)
        workspace = torch.empty(needed, dtype=torch.uint8, device=stack.device)
        _core.window_statistics_cuda(*arguments, workspace.data_ptr(), needed, device, stream)
    else:
        stream = out is not None and target.nbytes >= STREAM_STATISTICS_BYTES
        _core.window_statistics_cpu(*arguments, stream, threads or torch.get_num_threads())
    return target


# --------------------------------------------------------------------------------------------- sliding

# Edge of a tile of windows in blocks of lanes: its halo costs 6% of a LeNet's dense work.
CUDA_TILE = 32
# Device memory that the feature maps of one batch of tiles may take, and windows sorted into tiles at once.
CUDA_WORKSPACE_BYTES = 256 << 20
CUDA_WINDOWS = 1 << 22
# Instruction sets of the CPU kernel by their native numbers; the first is there on any machine.
SIMD = ("portable", "avx2", "avx512")
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
    least_of_nine
        Windows asked for in nine that lie together from which a CPU does all nine together.
    prepared
        Weights as the CPU kernel reads them, made when first used.
    """

    rows: tuple[tuple[int, ...], ...]
    map_layers: int
    classes: int
    parameters: torch.Tensor
    least_of_nine: int = 10
    prepared: dict[tuple[int, int, int], _core.PreparedProgram] = field(
        default_factory=dict, repr=False, compare=False
    )


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
        problem = _score_warps(stack, size, program, windows, out, strides, precision, head_lanes, host_warps)
        if not problem:
            return out
        if schedule == "warps" or host_warps is not None:
            raise ValueError(f"score_windows: {problem}.")
    if stack.device.type == "cuda" or host_lanes:
        _score_tiles(stack, size, program, windows, out, strides, host_lanes, reversed_lanes)
        return out
    _core.score_windows_cpu(
        stack.address,
        *stack.geometry,
        size,
        _prepared(program, size, program.least_of_nine if least_of_nine is None else least_of_nine, simd),
        windows.address,
        windows.count,
        out.data_ptr(),
        *strides,
        threads or torch.get_num_threads(),
    )
    return out


@cache
def _best_level() -> int:
    return int(_core.build_info()["simd_level"])


def _prepared(
    program: LayerProgram, size: int, least_of_nine: int, simd: str | None
) -> _core.PreparedProgram:
    """The program's weights as the CPU kernel reads them, kept with the program."""
    level = _best_level() if simd is None else SIMD.index(simd)
    key = (size, least_of_nine, level)
    if key not in program.prepared:
        parameters = program.parameters
        program.prepared[key] = _core.prepare_program(
            program.rows,
            program.map_layers,
            parameters.data_ptr(),
            parameters.numel(),
            size,
            least_of_nine,
            level,
        )
    return program.prepared[key]


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


def _score_warps(
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
    problem, packed_words, pixel_words, reach_y, reach_x, *tile = _core.score_windows_warp_layout(
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
        _core.score_windows_warps(
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


def _score_tiles(
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
    tile_floats = _core.score_windows_tile_floats(program.rows, program.map_layers, CUDA_TILE)
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
            _core.score_windows_tiles(
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
