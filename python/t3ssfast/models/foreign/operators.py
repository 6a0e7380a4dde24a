"""The operators of networks: for each, the conditions on its arguments and the shape of its result.

PyTorch's own checks are not relied on. Every size, stride and axis is checked here before an operator runs,
and the shape of every result is computed here. An operator without a rule is refused by its name.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import zip_longest

from t3ssfast.models.foreign.signatures import MAX_EXTENT, Arguments

__all__ = ["CONSTANTS_ONLY", "NEW_TENSORS", "PROMOTING", "RULES", "VIEWS", "Result", "Shape"]

Shape = tuple[int, ...]
# The time of transposed convolutions grows with the square of the stride, even for an output of one pixel.
MAX_STRIDE = 256


class Result:
    """Shapes of the outputs, and the multiply-adds for one element of the first."""

    def __init__(self, *shapes: Shape, work: int = 1, many: bool = False, indices: bool = False) -> None:
        self.shapes, self.work, self.many = shapes, work, many
        self.indices = indices  # whether the second output holds integer indices


def _same(a: Arguments) -> Result:
    if a.get("memory_format") == 2 and len(a.x) != 4:
        a.refuse("asks for channels last without four axes")
    if a.get("approximate", "none") not in ("none", "tanh"):
        a.refuse("has an approximation that it does not have")
    for name, value in a.items():
        if isinstance(value, float) and math.isnan(value):
            a.refuse(f"has {name} = nan")
    # The bounds of clamp may be tensors.
    shapes = [tensor.shape for tensor in a.tensors()]
    a.require(_broadcast(a, *shapes) == a.x, f"bounds of shapes {shapes[1:]} for an input of shape {a.x}")
    return Result(a.x, work=4)


def _evaluation_only(a: Arguments) -> Result:
    if a.get("train") or not 0 <= a["p"] <= 1:
        a.refuse("is in training mode")
    return Result(a.x)


def _broadcast(a: Arguments, *shapes: Shape) -> Shape:
    result = []
    for sizes in zip_longest(*(shape[::-1] for shape in shapes), fillvalue=1):
        largest = 0 if 0 in sizes else max(sizes)
        a.require(all(n in (1, largest) for n in sizes), f"shapes {shapes} do not fit together")
        result.append(largest)
    return tuple(result[::-1])


def _binary(a: Arguments) -> Result:
    if a.get("rounding_mode") is not None:
        a.refuse("rounds a quotient")
    a.finite("alpha")
    if type(a.get("alpha")) is bool:
        a.refuse(f"has alpha = {a['alpha']}")
    shapes = [tensor.shape for tensor in a.tensors()]
    return Result(_broadcast(a, *shapes))


# ------------------------------------------------------------------------------------- weighted sums, pooling


def _convolution(a: Arguments) -> Result:
    x, w, bias = a.x, a["weight"].shape, a.shape("bias")
    n = len(w) - 2
    named = a.name[-2] if a.name.endswith("d") else str(n)
    a.require(
        n in (1, 2, 3) and named == str(n) and len(x) == n + 2,
        f"an input of shape {x} and a weight of shape {w}",
    )
    transposed = a.get("transposed", "transpose" in a.name)
    groups = a.integer("groups", 1)
    stride, dilation = a.integers("stride", n, 1), a.integers("dilation", n, 1)
    if max(*stride, *dilation) > MAX_STRIDE:
        a.refuse(f"has a stride or dilation of over {MAX_STRIDE}")
    kernel, inputs, outputs = w[2:], w[1] * groups, w[0]
    if transposed:
        inputs, outputs = w[0], w[1] * groups
    fits = x[1] == inputs and inputs % groups == outputs % groups == 0 and 0 not in w
    a.require(fits, f"a weight of shape {w} in {groups} groups and an input of shape {x}")
    a.require(bias in (None, (outputs,)), f"a bias of shape {bias} for {outputs} channels")
    span = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    if isinstance(a["padding"], str):
        if a["padding"] not in ("same", "valid") or (a["padding"] == "same" and set(stride) != {1}):
            a.refuse("has a padding that it cannot have")
        total = [s - 1 if a["padding"] == "same" else 0 for s in span]
    else:
        total = [2 * p for p in a.integers("padding", n, 0)]
    extra = a.integers("output_padding", n, 0) if "output_padding" in a else []
    if transposed:
        if any(e >= max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)):
            a.refuse("has an output_padding that is not below its stride")
        sizes = [
            (m - 1) * s - p + k + e for m, s, p, k, e in zip(x[2:], stride, total, span, extra, strict=True)
        ]
    else:
        sizes = [(m + p - k) // s + 1 for m, p, k, s in zip(x[2:], total, span, stride, strict=True)]
    a.require(min(sizes) >= 1, f"an input of shape {x} is smaller than the kernel")
    work = math.prod(kernel) * max(1, inputs // groups)
    return Result((x[0], outputs, *sizes), work=work)


def _pool(a: Arguments) -> Result:
    n = int(a.name.partition("_pool")[2][0])
    x = a.x
    a.require(len(x) == n + 2, f"an input of shape {x}")
    kernel = a.integers("kernel_size", n, 1)
    stride, padding = a.integers("stride", n, 1, kernel), a.integers("padding", n, 0)
    dilation = a.integers("dilation", n, 1) if "dilation" in a else [1] * n
    if a.get("divisor_override") is not None:
        a.integer("divisor_override", 1)
    if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
        a.refuse("has a padding of more than half its kernel")
    sizes = []
    for m, k, s, p, d in zip(x[2:], kernel, stride, padding, dilation, strict=True):
        size = (m + 2 * p - d * (k - 1) - 1 + (s - 1 if a["ceil_mode"] else 0)) // s + 1
        # The last window of ceil mode must start inside the input or its left padding.
        sizes.append(size - 1 if a["ceil_mode"] and (size - 1) * s >= m + p else size)
    a.require(min(sizes) >= 1, f"an input of shape {x} is smaller than the kernel")
    shape = (*x[:2], *sizes)
    indices = "indices" in a.name
    return Result(*([shape] * (1 + indices)), work=math.prod(kernel), indices=indices)


def _adaptive_pool(a: Arguments) -> Result:
    n = int(a.name.partition("_pool")[2][0])
    a.require(len(a.x) == n + 2 and 0 not in a.x, f"an input of shape {a.x}")
    sizes = a.integers("output_size", n, 1)
    shape = (*a.x[:2], *sizes)
    maximum = "max" in a.name
    return Result(*([shape] * (1 + maximum)), work=math.prod(a.x[2:]), indices=maximum)


def _linear(a: Arguments) -> Result:
    x, w, bias = a.x, a["weight"].shape, a.shape("bias")
    a.require(
        len(w) == 2 and len(x) >= 1 and x[-1] == w[1], f"a weight of shape {w} and an input of shape {x}"
    )
    a.require(bias in (None, w[:1]), f"a bias of shape {bias} for {w[0]} outputs")
    return Result((*x[:-1], w[0]), work=max(1, w[1]))


def _matmul(a: Arguments) -> Result:
    x, y = (tensor.shape for tensor in a.tensors()[-2:])
    rank = {"mm": 2, "bmm": 3, "addmm": 2}.get(a.name)
    a.require(min(len(x), len(y)) >= 2 and x[-1] == y[-2], f"matrices of shapes {x} and {y}")
    a.require(rank is None or len(x) == len(y) == rank, f"matrices of shapes {x} and {y}")
    if a.name == "bmm":
        a.require(x[0] == y[0], f"matrices of shapes {x} and {y}")
    shape = (*_broadcast(a, x[:-2], y[:-2]), x[-2], y[-1])
    if a.name == "addmm":
        a.finite("alpha", "beta")
        a.require(_broadcast(a, a.x, shape) == shape, f"a sum of shape {a.x}")
    return Result(shape, work=max(1, x[-1]))


# --------------------------------------------------------------------------------------------- normalisations


def _normalisation(a: Arguments) -> Result:
    channels = a.x[1:2]
    a.require(len(a.x) >= 2, f"an input of shape {a.x}")
    a.finite("eps", "momentum")
    for name in ("weight", "bias", "running_mean", "running_var"):
        shape = a.shape(name)
        a.require(shape in (None, channels), f"{name} of shape {shape} for an input of shape {a.x}")
    running = a.shape("running_mean") is not None and a.shape("running_var") is not None
    if a.name == "group_norm":
        groups = a.integer("num_groups", 1)
        a.require(channels[0] % groups == 0, f"{groups} groups for an input of shape {a.x}")
    elif a.get("training") or (a.name == "instance_norm" and a["use_input_stats"] == running):
        a.refuse("is in training mode")
    elif a.name == "batch_norm" and not running:
        a.refuse("has no running mean and variance, so that its answers would depend on the batch")
    return Result(a.x, work=8)


def _layer_norm(a: Arguments) -> Result:
    size = tuple(a.integers("normalized_shape", len(a["normalized_shape"]), 1))
    a.finite("eps")
    a.require(bool(size) and a.x[-len(size) :] == size, f"{size} for an input of shape {a.x}")
    for name in ("weight", "bias"):
        a.require(a.shape(name) in (None, size), f"{name} of shape {a.shape(name)} for {size}")
    return Result(a.x, work=8)


def _prelu(a: Arguments) -> Result:
    count = math.prod(a["weight"].shape)
    a.require(
        count == 1 or (len(a.x) >= 2 and count == a.x[1]), f"{count} slopes for an input of shape {a.x}"
    )
    a.require(len(a["weight"].shape) <= 1, "its weight has several axes")
    return Result(a.x)


def _softmax(a: Arguments) -> Result:
    a.axis()
    return Result(a.x, work=8)


def _glu(a: Arguments) -> Result:
    axis = a.axis()
    a.require(a.x[axis] % 2 == 0, f"axis {axis} of an input of shape {a.x} has no two halves")
    return Result(_with(a.x, axis, a.x[axis] // 2), work=8)


# ----------------------------------------------------------------------------------------- padding, resizing


def _pad(a: Arguments) -> Result:
    pad = a["pad"] if "pad" in a else a["padding"]
    mode = a.get("mode", "constant" if a.name == "constant_pad_nd" else a.name.partition("_")[0])
    mode = {"reflection": "reflect", "replication": "replicate"}.get(mode, mode)
    spatial = len(pad) // 2
    if mode not in ("constant", "reflect", "replicate", "circular") or len(pad) % 2:
        a.refuse(f"pads by {pad[:8]} in a mode that it does not have")
    if mode != "constant" and (spatial != len(a.x) - 2 or a.name[-2:] not in ("ad", f"{spatial}d")):
        a.refuse(f"pads {spatial} axes of an input of shape {a.x}")
    a.require(spatial <= len(a.x) and 0 not in a.x, f"{pad} for an input of shape {a.x}")
    sizes = list(a.x)
    for k in range(spatial):
        before, after, size = pad[2 * k], pad[2 * k + 1], sizes[-1 - k]
        if not -MAX_EXTENT <= min(before, after) <= max(before, after) <= MAX_EXTENT:
            a.refuse(f"pads by {pad[:8]}")
        limit = {"reflect": size - 1, "circular": size}.get(mode, MAX_EXTENT)
        a.require(max(before, after) <= limit, f"{pad} in mode {mode} for an input of shape {a.x}")
        a.require(min(before, after) > -size, f"{pad} for an input of shape {a.x}")
        sizes[-1 - k] = size + before + after
    a.require(min(sizes, default=1) >= 1, f"{pad} for an input of shape {a.x}")
    return Result(tuple(sizes))


def _upsample(a: Arguments) -> Result:
    n = int(a.name[-2])
    a.require(len(a.x) == n + 2 and 0 not in a.x, f"an input of shape {a.x}")
    scales = a.get("scale_factors")
    if scales is None:
        scales = [a.get(key) for key in ("scales_d", "scales_h", "scales_w")[3 - n :]]
        scales = [a.get("scales")] if n == 1 else scales
    if len(scales) != n:
        a.refuse(f"has {len(scales)} scales for {n} axes")
    given = a["output_size"] is not None
    sizes = a.integers("output_size", n, 1) if given else [0] * n
    if not given and None in scales:
        a.refuse("has neither a size nor a scale")
    for k, scale in enumerate(scales):
        if scale is None:
            continue
        # Also bars NaN.
        if not 1 / 64 <= scale <= 64:
            a.refuse(f"has the scale {scale}, which must be from 1/64 to 64")
        size = int(float(a.x[k + 2]) * scale)
        if given and sizes[k] != size:
            a.refuse(f"has the scale {scale} and another size than that gives")
        sizes[k] = size
    a.require(min(sizes) >= 1, f"an input of shape {a.x} would become empty")
    return Result((*a.x[:2], *sizes), work=16 * n)


def _pixel_shuffle(a: Arguments) -> Result:
    a.require(len(a.x) == 4 and 0 not in a.x, f"an input of shape {a.x}")
    (count, channels, y, x) = a.x
    if a.name == "channel_shuffle":
        groups = a.integer("groups", 1)
        a.require(channels % groups == 0, f"{groups} groups for an input of shape {a.x}")
        return Result(a.x)
    if a.name == "pixel_shuffle":
        r = a.integer("upscale_factor", 1)
        a.require(channels % (r * r) == 0, f"a factor of {r} for an input of shape {a.x}")
        return Result((count, channels // (r * r), y * r, x * r))
    r = a.integer("downscale_factor", 1)
    a.require(y % r == x % r == 0, f"a factor of {r} for an input of shape {a.x}")
    return Result((count, channels * r * r, y // r, x // r))


# -------------------------------------------------------------------------------------------- shapes, slicing


def _with(shape: Shape, axis: int, *sizes: int) -> Shape:
    return (*shape[:axis], *sizes, *shape[axis + 1 :])


def _infer(a: Arguments, sizes: list[int], total: int) -> Shape:
    """Return sizes with a single -1 replaced by what is left of `total`."""
    known = math.prod(n for n in sizes if n != -1)
    valid = all(-1 <= n <= total for n in sizes) and sizes.count(-1) <= 1 and len(sizes) <= 8
    a.require(valid, f"{sizes[:9]} for {total} elements")
    if -1 in sizes:
        a.require(known > 0 and total % known == 0, f"{sizes} for {total} elements")
        sizes = [total // known if n == -1 else n for n in sizes]
    a.require(math.prod(sizes) == total, f"{sizes} for {total} elements")
    return tuple(sizes)


def _reshape(a: Arguments) -> Result:
    if "dtype" in a:
        a.refuse("reads the bits of its input as another dtype")
    sizes = list(a["size"] if "size" in a else a["shape"])
    return Result(_infer(a, sizes, math.prod(a.x)))


def _flatten(a: Arguments) -> Result:
    first, last = a.axis("start_dim", max(1, len(a.x))), a.axis("end_dim", max(1, len(a.x)))
    a.require(first <= last, f"axes {first} to {last}")
    return Result((*a.x[:first], math.prod(a.x[first : last + 1]), *a.x[last + 1 :]))


def _unflatten(a: Arguments) -> Result:
    axis = a.axis()
    return Result(_with(a.x, axis, *_infer(a, list(a["sizes"]), a.x[axis])))


def _squeeze(a: Arguments) -> Result:
    axes = [] if a.get("dim") == [] else a.axes()
    return Result(tuple(n for axis, n in enumerate(a.x) if axis not in axes or n != 1))


def _unsqueeze(a: Arguments) -> Result:
    axis = a.axis(rank=len(a.x) + 1)
    return Result((*a.x[:axis], 1, *a.x[axis:]))


def _permute(a: Arguments) -> Result:
    if a.name == "permute":
        axes = a.axes("dims")
        a.require(len(a["dims"]) == len(a.x), f"{len(a['dims'])} axes of {len(a.x)}")
    else:
        a.require(a.name != "t" or len(a.x) <= 2, f"an input of shape {a.x}")
        pair = [0, len(a.x) - 1] if a.name == "t" else [a.axis(key) for key in list(a)[1:3]]
        axes = list(range(len(a.x)))
        if axes:
            axes[pair[0]], axes[pair[1]] = pair[1], pair[0]
    return Result(tuple(a.x[axis] for axis in axes))


def _expand(a: Arguments) -> Result:
    sizes = list(a["size"])
    lead = len(sizes) - len(a.x)
    a.require(0 <= lead <= 8, f"{sizes[:9]} for an input of shape {a.x}")
    for k, n in enumerate(sizes):
        own = a.x[k - lead] if k >= lead else 1
        sizes[k] = own if n == -1 and k >= lead else n
        a.require(sizes[k] == own or (own == 1 and 1 <= n <= MAX_EXTENT), f"{sizes} for a shape {a.x}")
    return Result(tuple(sizes))


def _repeat(a: Arguments) -> Result:
    repeats = a.integers("repeats", len(a["repeats"]), 1)
    lead = len(repeats) - len(a.x)
    a.require(lead >= 0 and len(repeats) <= 8, f"{repeats[:9]} for an input of shape {a.x}")
    return Result(tuple(n * m for n, m in zip((1,) * lead + a.x, repeats, strict=True)))


def _cat(a: Arguments) -> Result:
    shapes = [tensor.shape for tensor in a["tensors"]]
    a.require(0 < len(shapes) <= 1024, f"{len(shapes)} tensors")
    first = shapes[0]
    if a.name == "stack":
        axis = a.axis(rank=len(first) + 1)
        a.require(all(shape == first for shape in shapes), f"tensors of shapes {shapes[:4]}")
        return Result((*first[:axis], len(shapes), *first[axis:]))
    axis = a.axis(rank=len(first))
    fit = all(len(s) == len(first) and _with(s, axis, 0) == _with(first, axis, 0) for s in shapes)
    a.require(fit, f"tensors of shapes {shapes[:4]} along axis {axis}")
    return Result(_with(first, axis, sum(shape[axis] for shape in shapes)))


def _split(a: Arguments) -> Result:
    axis = a.axis()
    size = a.x[axis]
    if a.name == "unbind":
        a.require(size <= 1024, f"{size} parts")
        return Result(*[_with(a.x, axis)] * size, many=True)
    if a.name == "chunk":
        step = max(1, -(-size // a.integer("chunks", 1)))
    elif isinstance(a.get("split_size"), int):
        step = a.integer("split_size", 1)
    else:
        sizes = list(a["split_sizes"] if "split_sizes" in a else a["split_size"])
        a.require(min(sizes, default=-1) >= 0 and sum(sizes) == size, f"parts {sizes[:9]} of {size}")
        return Result(*[_with(a.x, axis, n) for n in sizes], many=True)
    parts = [min(step, size - start) for start in range(0, size, step)]
    a.require(0 < len(parts) <= 1024, f"{len(parts)} parts")
    return Result(*[_with(a.x, axis, n) for n in parts], many=True)


def _slice(a: Arguments) -> Result:
    axis = a.axis()
    step = a.integer("step", 1)
    count = len(range(*slice(a["start"], a["end"], step).indices(a.x[axis])))
    return Result(_with(a.x, axis, count))


def _select(a: Arguments) -> Result:
    axis = a.axis()
    index, size = a["index"], a.x[axis]
    a.require(-size <= index < size, f"there is no index {index} in axis {axis} of shape {a.x}")
    return Result(_with(a.x, axis))


def _narrow(a: Arguments) -> Result:
    axis = a.axis()
    start, length = a["start"], a["length"]
    if not isinstance(start, int):
        a.refuse("starts at a tensor")
    a.require(0 <= start <= start + length <= a.x[axis] and length >= 0, f"{start}, {length} of shape {a.x}")
    return Result(_with(a.x, axis, length))


def _flip(a: Arguments) -> Result:
    a.axes("dims")
    if a.name == "roll":
        a.require(bool(a["dims"]), "no axes are named")
        a.integers("shifts", len(a["dims"]), -MAX_EXTENT)
    return Result(a.x)


def _reduce(a: Arguments) -> Result:
    if "other" in a:
        return _binary(a)
    axes = a.axes()
    a.require(0 not in a.x, f"an input of shape {a.x}")
    if a.get("correction") is not None:
        a.finite("correction")
    shape = tuple(1 if axis in axes else n for axis, n in enumerate(a.x))
    if not a.get("keepdim"):
        shape = tuple(n for axis, n in enumerate(a.x) if axis not in axes)
    indices = a.name in ("max", "min") and "dim" in a
    return Result(*([shape] * (1 + indices)), work=math.prod(a.x[k] for k in axes), indices=indices)


def _new(a: Arguments) -> Result:
    if a.name != "arange":
        a.finite("fill_value")
        a.require(min(a["size"], default=0) >= 0 and len(a["size"]) <= 8, f"a size of {a['size'][:9]}")
        return Result(tuple(a["size"]))
    start, end, step = a.get("start", 0), a["end"], a.get("step", 1)
    a.finite("start", "end", "step")
    a.require(step != 0 and (end - start) / step >= 0, f"there is no range from {start} to {end} by {step}")
    return Result((math.ceil((end - start) / step),))


_NAMES: dict[Callable[[Arguments], Result], str] = {
    _same: """
        relu relu6 leaky_relu elu selu celu gelu silu mish hardswish hardsigmoid hardtanh softplus softshrink
        hardshrink sigmoid tanh log_sigmoid threshold abs neg exp expm1 log log1p sqrt rsqrt square reciprocal
        sin cos erf floor ceil round clamp clamp_min clamp_max clip sign clone contiguous
        ones_like zeros_like
    """,
    _evaluation_only: "dropout feature_dropout alpha_dropout feature_alpha_dropout",
    _binary: """
        add sub rsub mul div true_divide multiply divide subtract maximum minimum pow atan2 eq ne lt le gt ge
    """,
    _convolution: """
        conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution _convolution
        _convolution_mode
    """,
    _pool: "max_pool1d max_pool2d max_pool3d max_pool2d_with_indices avg_pool1d avg_pool2d avg_pool3d",
    _adaptive_pool: """
        adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
        adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d
    """,
    _linear: "linear",
    _matmul: "matmul mm bmm addmm",
    _normalisation: "batch_norm instance_norm group_norm",
    _layer_norm: "layer_norm",
    _prelu: "prelu",
    _softmax: "softmax log_softmax",
    _glu: "glu",
    _pad: """
        pad constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d
        replication_pad1d replication_pad2d replication_pad3d
    """,
    _upsample: """
        upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d
        _upsample_nearest_exact2d _upsample_nearest_exact3d
        upsample_linear1d upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d
    """,
    _pixel_shuffle: "pixel_shuffle pixel_unshuffle channel_shuffle",
    _reshape: "view reshape",
    _flatten: "flatten",
    _unflatten: "unflatten",
    _squeeze: "squeeze",
    _unsqueeze: "unsqueeze",
    _permute: "permute transpose swapaxes t",
    _expand: "expand",
    _repeat: "repeat",
    _cat: "cat concat concatenate stack",
    _split: "split split_with_sizes chunk unbind",
    _slice: "slice",
    _select: "select",
    _narrow: "narrow",
    _flip: "flip roll",
    _reduce: "mean sum amax amin max min var std",
    _new: "zeros ones full arange",
}
RULES = {name: rule for rule, names in _NAMES.items() for name in names.split()}
NEW_TENSORS = frozenset(["zeros", "ones", "full", "arange", "zeros_like", "ones_like"])
PROMOTING = frozenset(["add", "sub", "rsub", "mul", "div", "true_divide", "maximum", "minimum"])
CONSTANTS_ONLY = frozenset(["eq", "ne", "lt", "le", "gt", "ge"])
# Operators whose results may share memory with their input.
_VIEWS = """
view reshape flatten unflatten squeeze unsqueeze permute transpose swapaxes t expand split split_with_sizes
chunk unbind slice select narrow contiguous dropout feature_dropout alpha_dropout feature_alpha_dropout
"""
VIEWS = frozenset(_VIEWS.split())
