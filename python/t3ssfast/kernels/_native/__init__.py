"""The only door to the native kernels: checks and converts arrays, allocates results, passes addresses.

Everything that reaches the extension has been checked here, so the kernels check nothing. `images`, `windows`
and `results` hold what the families of kernels share; `unfold`, `statistics` and `sliding` are the families,
and `lanes` and `warps` the schedules of sliding on a CUDA device. `extension` alone imports `_core`.
"""

from __future__ import annotations

from t3ssfast.kernels._native.build import SIMD, build_info, openvino_version
from t3ssfast.kernels._native.images import Array, ImageStack, as_stack
from t3ssfast.kernels._native.layer_program import LayerProgram
from t3ssfast.kernels._native.results import check_out, to_caller
from t3ssfast.kernels._native.score_windows import score_windows
from t3ssfast.kernels._native.tensor_core import HostWarps
from t3ssfast.kernels._native.unfold import STREAM_BYTES, empty_windows, unfold
from t3ssfast.kernels._native.window_statistics import STATISTICS, window_statistics
from t3ssfast.kernels._native.windows import Windows, as_windows, check_size

__all__ = [
    "SIMD",
    "STATISTICS",
    "STREAM_BYTES",
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
    "empty_windows",
    "openvino_version",
    "score_windows",
    "to_caller",
    "unfold",
    "window_statistics",
]
