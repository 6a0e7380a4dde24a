"""The only importer of the native extension: checks arrays, allocates results and passes addresses.

The kernels check nothing themselves. `images`, `windows` and `results` are shared by the kernels `unfold`,
`window_statistics` and `score_windows`; `simt` and `tensor_core` are the CUDA paths of `score_windows`. Only
`extension` imports `_core`.
"""

from __future__ import annotations

from t3ssfast.kernels._native.build import SIMD, build_info, openvino_version
from t3ssfast.kernels._native.images import Array, ImageStack, as_stack
from t3ssfast.kernels._native.layer_program import LayerProgram
from t3ssfast.kernels._native.mask_edges import EdgeAxis, mask_edges
from t3ssfast.kernels._native.mask_voxels import (
    count_nonzero,
    flat_nonzero,
    keep_in_squares,
    mark_high_sums,
    mark_near,
)
from t3ssfast.kernels._native.masks import MaskComponents, count_levels, near_mask, threshold_levels
from t3ssfast.kernels._native.probability_levels import HIGHEST_LEVEL, probability_levels
from t3ssfast.kernels._native.results import check_out, to_caller
from t3ssfast.kernels._native.score_windows import score_windows
from t3ssfast.kernels._native.sparse_voxels import (
    centroids,
    local_maxima,
    scores_from,
    scores_near,
    smooth_along,
)
from t3ssfast.kernels._native.tensor_core import HostWarps
from t3ssfast.kernels._native.unfold import STREAM_BYTES, empty_windows, unfold
from t3ssfast.kernels._native.window_statistics import STATISTICS, window_statistics
from t3ssfast.kernels._native.windows import Windows, as_windows, check_size

__all__ = [
    "HIGHEST_LEVEL",
    "SIMD",
    "STATISTICS",
    "STREAM_BYTES",
    "Array",
    "EdgeAxis",
    "HostWarps",
    "ImageStack",
    "LayerProgram",
    "MaskComponents",
    "Windows",
    "as_stack",
    "as_windows",
    "build_info",
    "centroids",
    "check_out",
    "check_size",
    "count_levels",
    "count_nonzero",
    "empty_windows",
    "flat_nonzero",
    "keep_in_squares",
    "local_maxima",
    "mark_high_sums",
    "mark_near",
    "mask_edges",
    "near_mask",
    "openvino_version",
    "probability_levels",
    "score_windows",
    "scores_from",
    "scores_near",
    "smooth_along",
    "threshold_levels",
    "to_caller",
    "unfold",
    "window_statistics",
]
