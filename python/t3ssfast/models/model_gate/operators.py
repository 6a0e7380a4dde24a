"""The operators that TorchScript code in a model file may call: what inference of a CNN needs, and no more.

Every name stands for an operator (with all its overloads) that reads its arguments and computes from them.
None of them opens a file, starts a thread, calls out of PyTorch, or makes a tensor of memory that it did not
check or did not initialise. Left out on purpose are, among others: save, load, from_file, fork, wait,
as_strided, set_, resize_, empty, the random ones (a detection is repeatable), and every operator outside
`aten` but for the handful of `prim` below.
"""

from __future__ import annotations

__all__ = ["LIST_ARGUMENT", "POSITIVE_DIVISOR", "PRIM", "TORCH"]

_LAYERS = """
conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution _convolution
linear bilinear matmul mm bmm addmm baddbmm einsum
batch_norm instance_norm group_norm layer_norm rms_norm
dropout dropout_ feature_dropout feature_dropout_ alpha_dropout alpha_dropout_
feature_alpha_dropout feature_alpha_dropout_
max_pool1d max_pool2d max_pool3d max_pool2d_with_indices max_pool3d_with_indices max_unpool2d
avg_pool1d avg_pool2d avg_pool3d
adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d
upsample_nearest1d upsample_nearest2d upsample_nearest3d
_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d
upsample_linear1d upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d
_upsample_bilinear2d_aa _upsample_bicubic2d_aa _upsample_lanczos2d_aa
pixel_shuffle pixel_unshuffle channel_shuffle
pad constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d
replication_pad1d replication_pad2d replication_pad3d
"""
_ACTIVATIONS = """
relu relu_ relu6 relu6_ leaky_relu leaky_relu_ elu elu_ selu selu_ celu celu_ gelu silu silu_ mish mish_
hardswish hardswish_ hardsigmoid hardsigmoid_ hardtanh hardtanh_ softplus softshrink hardshrink
sigmoid sigmoid_ tanh tanh_ log_sigmoid prelu threshold threshold_ glu softmax log_softmax
"""
_SHAPES = """
size dim len numel flatten unflatten reshape reshape_as view view_as expand expand_as
squeeze squeeze_ unsqueeze unsqueeze_ permute transpose t movedim swapaxes contiguous clone detach
cat concat concatenate stack hstack vstack split split_with_sizes chunk unbind tensor_split
slice select narrow index_select flip roll repeat repeat_interleave tile
to type_as is_floating_point is_contiguous
zeros ones full zeros_like ones_like full_like new_zeros new_ones new_full arange linspace tensor
scalar_tensor
"""
_ARITHMETIC = """
add add_ sub sub_ rsub mul mul_ div div_ true_divide multiply divide subtract floor_divide floordiv remainder
addcmul addcdiv neg abs abs_ absolute exp exp_ expm1 log log1p log2 log10 sqrt sqrt_ rsqrt pow square
reciprocal sin cos tan atan erf sign clamp clamp_ clamp_min clamp_min_ clamp_max clamp_max_ clip clip_
round floor ceil trunc frac maximum minimum max min amax amin argmax argmin mean sum prod std var std_mean
var_mean norm linalg_vector_norm logsumexp cumsum lerp where masked_fill masked_fill_ nan_to_num
isnan isinf isfinite
"""
_LOGIC = """
eq ne lt le gt ge logical_and logical_or logical_not logical_xor bitwise_and bitwise_or bitwise_not any all
__and__ __or__ __xor__ __not__ __is__ __isnot__ __contains__
"""
_PYTHON = """
append extend insert pop copy list __getitem__ _set_item __range_length __derive_index format warn
Int Float Bool IntImplicit FloatImplicit ScalarImplicit item device
"""

# `torch.NAME(...)` in serialised code is the operator aten::NAME.
TORCH = frozenset(" ".join([_LAYERS, _ACTIVATIONS, _SHAPES, _ARITHMETIC, _LOGIC, _PYTHON]).split())
# `ops.prim.NAME(...)`.
PRIM = frozenset(["NumToTensor", "RaiseException", "data", "device", "dtype", "max", "min"])
# Here an integer in place of the list of sizes would mean a dtype, and the bits would be read as of that.
LIST_ARGUMENT = frozenset(["view"])
# Of integers, these divide without looking at the divisor, and a division by zero ends the process.
POSITIVE_DIVISOR = frozenset(["remainder"])
