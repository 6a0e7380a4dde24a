"""Reads a LeNet-like classifier into a plan that answers on every window without repeating work.

A plan is a chain of layers over feature maps at stride 1, exact for convolutions without padding and pooling
in floor mode: a layer behind a pooling of stride s takes its taps s times as far apart ("a trous"). The
feature maps are shared by all windows; the fully connected layers are done only where they are asked for.

The chain is read by running the model once and watching which tensor operations it makes, so scripted,
traced, frozen and eager models are read by the same code, whatever they are written like.
"""

from __future__ import annotations

import contextlib
import math
import weakref
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from t3ssfast import _native
from t3ssfast.errors import ConfigError, DeviceError, InputError, ModelError

__all__ = ["Cost", "Plan", "estimate_cost", "explain_plan", "read_plan", "run_model"]

# The plan must give what the model gives to this, relative to the largest answer or 1.
TOLERANCE = 1e-4


class LayerKind(IntEnum):
    """The kinds of `csrc/core/layers.h`, by the same numbers."""

    CONVOLUTION = 0
    LINEAR = 1
    MAX_POOL = 2
    AVERAGE_POOL = 3
    AFFINE = 4
    RELU = 5
    LEAKY_RELU = 6
    TANH = 7
    SIGMOID = 8
    GELU = 9
    GELU_TANH = 10
    SOFTMAX = 11
    LOG_SOFTMAX = 12


@dataclass(frozen=True)
class Layer:
    """One layer of a plan.

    Parameters
    ----------
    kind
        What it does.
    channels
        (in, out).
    kernel
        (y, x) taps.
    step
        (y, x) distance between taps on the stride-1 map.
    weight
        (y, x, in, out) float64, of convolutions and linear layers; (channels,) scale of an affine layer;
        (1,) slope of a leaky ReLU.
    bias
        (out,) float64, of convolutions and linear layers; (channels,) shift of an affine layer.
    outputs_in_window
        How many values a single window has behind this layer, all channels together.
    """

    kind: LayerKind
    channels: tuple[int, int]
    kernel: tuple[int, int] = (1, 1)
    step: tuple[int, int] = (1, 1)
    weight: torch.Tensor | None = None
    bias: torch.Tensor | None = None
    outputs_in_window: int = 1

    def parameters(self) -> list[torch.Tensor]:
        """The numbers the native kernel reads, in its order."""
        return [p for p in (self.weight, self.bias) if p is not None]

    def products(self) -> int:
        """Multiply-adds for one output value."""
        weighted = self.kind in (LayerKind.CONVOLUTION, LayerKind.LINEAR)
        return self.kernel[0] * self.kernel[1] * self.channels[0] if weighted else 0


@dataclass(frozen=True)
class Plan:
    """A model read for windows of one size: what `_native.score_windows` executes.

    Parameters
    ----------
    size
        Edge of the window.
    layers
        The chain; the first linear layer begins the head, which is done only at the windows asked for.
    """

    size: int
    layers: tuple[Layer, ...]

    @property
    def map_layers(self) -> int:
        """How many layers work on feature maps; the rest is the head."""
        return next(i for i, layer in enumerate(self.layers) if layer.kind == LayerKind.LINEAR)

    @property
    def classes(self) -> int:
        """Number of answers a window gets."""
        return self.layers[-1].channels[1]

    def program(self) -> _native.LayerProgram:
        """The plan as the native kernel reads it."""
        rows = []
        parameters: list[torch.Tensor] = []
        offset = 0
        for layer in self.layers:
            own = torch.cat([p.reshape(-1) for p in layer.parameters()] or [torch.zeros(0)])
            rows.append((int(layer.kind), *layer.channels, *layer.kernel, *layer.step, offset, own.numel()))
            parameters.append(own.to(torch.float32))
            offset += own.numel()
        return _native.LayerProgram(tuple(rows), self.map_layers, self.classes, torch.cat(parameters))

    def describe(self) -> str:
        """The chain in words, such as "conv 5x5 to 6, relu, max pool 2x2, ..."."""
        words = []
        for i, layer in enumerate(self.layers):
            name = layer.kind.name.lower().replace("_", " ")
            if layer.kind in (LayerKind.CONVOLUTION, LayerKind.LINEAR):
                taps = f" {layer.kernel[0]}x{layer.kernel[1]}" if i <= self.map_layers else ""
                name = f"{name}{taps} to {layer.channels[1]}"
            elif layer.kernel != (1, 1):
                name = f"{name} {layer.kernel[0]}x{layer.kernel[1]}"
            words.append(name)
        return ", ".join(words)


class _Unreadable(Exception):
    """The chain cannot be read; the message says why, to stand behind "because"."""


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every tensor operation, with its arguments by name."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here, and torch would import its compiler, a second's work, to say so."""
        return False

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[str, dict[str, Any], Any]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        named: dict[str, Any] = {}
        for i, argument in enumerate(func._schema.arguments):
            if i < len(args):
                named[argument.name] = args[i]
            elif argument.name in kwargs:
                named[argument.name] = kwargs[argument.name]
            else:
                named[argument.name] = argument.default_value
        result = func(*args, **kwargs)
        name = func._schema.name.removeprefix("aten::")
        # x.relu_() and relu(x) are the same layer; names such as __and__ are not in-place ones.
        self.calls.append((name if name.endswith("__") else name.rstrip("_"), named, result))
        return result


def _pair(value: Any, default: tuple[int, int] = (1, 1)) -> tuple[int, int]:
    """torch's int, [n] or [y, x] as (y, x); an empty list stands for `default`."""
    if isinstance(value, int):
        return value, value
    values = [int(v) for v in value]
    if not values:
        return default
    return (values[0], values[0]) if len(values) == 1 else (values[0], values[1])


class _Chain:
    """Builds the layers of a plan from recorded calls, following one tensor through them."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor
        self.seen = {id(tensor)}
        self.layers: list[Layer] = []
        self.channels = 1
        self.local = (int(tensor.shape[2]), int(tensor.shape[3]))  # size of a window's own map
        self.step = (1, 1)
        self.flat = False  # (M, channels * y * x): the axes of the map are folded into one
        self.head = False

    # ------------------------------------------------------------------------------ following

    def follow(self, name: str, arguments: dict[str, Any], result: Any) -> None:
        """Takes one recorded call; ones that do not touch the chain only make constants."""
        flat_arguments: list[Any] = []
        for value in arguments.values():
            flat_arguments.extend(value if isinstance(value, list | tuple) else [value])
        used = [v for v in flat_arguments if isinstance(v, torch.Tensor) and id(v) in self.seen]
        if not used:
            return
        if any(v is not self.tensor for v in used) or len(used) > 1:
            raise _Unreadable(f"{name} takes up an earlier feature map again, so the layers are no chain")
        output = result[0] if isinstance(result, list | tuple) else result
        if not isinstance(output, torch.Tensor):
            raise _Unreadable(f"{name} turns the feature maps into a number")
        reader = _READERS.get(name)
        if reader is None:
            raise _Unreadable(f"{name} is not among the layers that a plan can hold")
        reader(self, name, arguments, output)
        expected = self.shape(int(self.tensor.shape[0]))
        if tuple(output.shape) not in expected:
            raise _Unreadable(f"{name} gives a map of shape {tuple(output.shape)[1:]}, not {expected[0][1:]}")
        self.tensor = output
        self.seen.add(id(output))

    def shape(self, count: int) -> list[tuple[int, ...]]:
        """Shapes that the current tensor may have."""
        folded = (count, self.channels * self.local[0] * self.local[1])
        unfolded = (count, self.channels, *self.local)
        return [folded] if self.flat else [unfolded]

    def append(self, kind: LayerKind, out_channels: int | None = None, **fields: Any) -> None:
        channels = (self.channels, self.channels if out_channels is None else out_channels)
        values = channels[1] * self.local[0] * self.local[1]
        self.layers.append(Layer(kind, channels, outputs_in_window=values, **fields))
        self.channels = channels[1]

    # --------------------------------------------------------------------------------- layers

    def spatial(
        self, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int], name: str
    ) -> tuple[int, int]:
        """Moves on by a layer with a kernel; returns the step of its taps."""
        if self.flat:
            raise _Unreadable(f"{name} comes behind the flattening")
        step = (self.step[0] * dilation[0], self.step[1] * dilation[1])
        y, x = ((self.local[i] - 1 - (kernel[i] - 1) * dilation[i]) // stride[i] + 1 for i in range(2))
        self.local = (y, x)
        self.step = (self.step[0] * stride[0], self.step[1] * stride[1])
        return step

    def weighted(
        self, weight: torch.Tensor, bias: torch.Tensor | None, step: tuple[int, int], linear: bool
    ) -> None:
        """Appends a convolution or linear layer of `weight` (out, in, y, x)."""
        weight = weight.detach().cpu().to(torch.float64)
        shift = torch.zeros(weight.shape[0], dtype=torch.float64)
        if bias is not None:
            shift = bias.detach().cpu().to(torch.float64)
        if self.layers and self.layers[-1].kind == LayerKind.AFFINE:
            # Without padding, an affine map before a weighted sum is part of the sum.
            before = self.layers.pop()
            assert before.weight is not None
            assert before.bias is not None
            shift = shift + torch.einsum("oiyx,i->o", weight, before.bias)
            weight = weight * before.weight[None, :, None, None]
        if not (torch.isfinite(weight).all() and torch.isfinite(shift).all()):
            raise _Unreadable("a weight is NaN or infinite")
        self.append(
            LayerKind.LINEAR if linear else LayerKind.CONVOLUTION,
            int(weight.shape[0]),
            kernel=(int(weight.shape[2]), int(weight.shape[3])),
            step=step,
            weight=weight.permute(2, 3, 1, 0).contiguous(),
            bias=shift,
        )
        self.head = self.head or linear

    def begin_head(self) -> None:
        """Makes sure that what follows is done per window, by a layer that changes nothing."""
        if self.head:
            return
        if self.local != (1, 1):
            raise _Unreadable("the answer is not made by a fully connected layer")
        identity = torch.eye(self.channels, dtype=torch.float64)[:, :, None, None]
        self.weighted(identity, None, (1, 1), linear=True)

    def affine(self, scale: torch.Tensor, shift: torch.Tensor) -> None:
        """x * scale + shift per channel, folded into a weighted layer where one stands right before."""
        if not (torch.isfinite(scale).all() and torch.isfinite(shift).all()):
            raise _Unreadable("a normalisation has a scale or shift that is NaN or infinite")
        last = self.layers[-1] if self.layers else None
        if last is not None and last.weight is not None and last.bias is not None:
            self.layers[-1] = replace(last, weight=last.weight * scale, bias=last.bias * scale + shift)
            return
        self.append(LayerKind.AFFINE, weight=scale, bias=shift)


# ------------------------------------------------------------------------------- readers of one operation


def _read_convolution(chain: _Chain, name: str, a: dict[str, Any], output: torch.Tensor) -> None:
    padding = a["padding"]
    if a.get("transposed") or (padding != "valid" and _pair(padding, (0, 0)) != (0, 0)):
        raise _Unreadable("a convolution pads its input, and what lies beyond a window is not zero")
    if a["groups"] != 1:
        raise _Unreadable("a convolution works in groups")
    weight = a["weight"]
    if weight.ndim != 4:
        raise _Unreadable("a convolution is not two-dimensional")
    kernel = (int(weight.shape[2]), int(weight.shape[3]))
    dilation = _pair(a["dilation"])
    whole = all((kernel[i] - 1) * dilation[i] + 1 == chain.local[i] for i in range(2))
    step = chain.spatial(kernel, _pair(a["stride"]), dilation, name)
    if whole:
        # It sees a window's whole map, so it is a fully connected layer by another name.
        chain.weighted(weight, a["bias"], step, linear=True)
    else:
        chain.weighted(weight, a["bias"], step, linear=False)


def _read_linear(chain: _Chain, name: str, a: dict[str, Any], output: torch.Tensor) -> None:
    if name == "linear":
        weight, bias = a["weight"], a["bias"]
    elif name == "addmm":
        weight, bias = a["mat2"].t(), a["self"]
        if a["mat1"] is not chain.tensor or a["alpha"] != 1 or a["beta"] != 1:
            raise _Unreadable("a matrix product is not of the form of a fully connected layer")
    else:
        weight, bias = a["mat2"].t(), None
        if a["self"] is not chain.tensor:
            raise _Unreadable("a matrix product is not of the form of a fully connected layer")
    if not chain.flat and chain.local != (1, 1):
        raise _Unreadable("a fully connected layer works on an unflattened map")
    if bias is not None and bias.ndim != 1:
        raise _Unreadable("a fully connected layer has a bias per window")
    weight = weight.reshape(weight.shape[0], chain.channels, *chain.local)
    step, chain.local, chain.flat = chain.step, (1, 1), True
    chain.weighted(weight, bias, step, linear=True)


def _read_pool(chain: _Chain, name: str, a: dict[str, Any], output: torch.Tensor) -> None:
    kernel = _pair(a["kernel_size"])
    if _pair(a["padding"], (0, 0)) != (0, 0):
        raise _Unreadable("a pooling pads its input, and what lies beyond a window is not empty")
    if a.get("divisor_override") is not None:
        raise _Unreadable("an average pooling has a divisor of its own")
    kind = LayerKind.AVERAGE_POOL if name.startswith("avg") else LayerKind.MAX_POOL
    step = chain.spatial(kernel, _pair(a["stride"], kernel), _pair(a.get("dilation", 1)), name)
    if kernel != (1, 1):
        chain.append(kind, kernel=kernel, step=step)


def _read_global_mean(chain: _Chain, name: str, a: dict[str, Any], output: torch.Tensor) -> None:
    kernel, step = chain.local, chain.step
    if name == "mean":
        axes = sorted(d % chain.tensor.ndim for d in a["dim"] or [])
        if chain.flat or axes != [2, 3] or a["dtype"] is not None:
            raise _Unreadable("a mean is taken over something else than the whole map of a channel")
        chain.flat = not a["keepdim"]
    elif _pair(a["output_size"]) != (1, 1):
        raise _Unreadable("an adaptive pooling does not end in one value")
    chain.local = (1, 1)
    if kernel != (1, 1):
        chain.append(LayerKind.AVERAGE_POOL, kernel=kernel, step=step)


def _read_activation(chain: _Chain, name: str, a: dict[str, Any], output: torch.Tensor) -> None:
    if name == "leaky_relu":
        slope = torch.tensor([float(a["negative_slope"])], dtype=torch.float64)
        chain.append(LayerKind.LEAKY_RELU, weight=slope)
        return
    kind = LayerKind[name.upper()]
    if name == "gelu" and a["approximate"] == "tanh":
        kind = LayerKind.GELU_TANH
    chain.append(kind)


def _read_batch_norm(chain: _Chain, name: str, a: dict[str, Any], output: torch.Tensor) -> None:
    if a.get("training"):
        raise _Unreadable("a batch normalisation is in training mode")
    if chain.flat and chain.local != (1, 1):
        raise _Unreadable("a batch normalisation stands between the flattening and the next layer")

    def numbers(key: str) -> torch.Tensor | None:
        return None if a[key] is None else a[key].detach().cpu().to(torch.float64)

    mean, variance = numbers("running_mean"), numbers("running_var")
    if mean is None or variance is None:
        raise _Unreadable("a batch normalisation has no running mean, so windows depend on each other")
    scale = 1.0 / torch.sqrt(variance + float(a["eps"] if "eps" in a else a["epsilon"]))
    weight, bias = numbers("weight"), numbers("bias")
    scale = scale if weight is None else scale * weight
    shift = -mean * scale
    chain.affine(scale, shift if bias is None else shift + bias)


def _read_arithmetic(chain: _Chain, name: str, a: dict[str, Any], output: torch.Tensor) -> None:
    first, second = a["self"], a["other"]
    if first is not chain.tensor:
        if name in ("sub", "div"):
            raise _Unreadable(f"{name} takes the feature maps away from a constant")
        first, second = second, first
    constant = torch.as_tensor(second).detach().cpu().to(torch.float64)
    if constant.numel() == 1:
        constant = constant.reshape(1).expand(chain.channels)
    else:
        shape = (1,) * (chain.tensor.ndim - constant.ndim) + tuple(constant.shape)
        per_channel = (1, chain.channels, 1, 1)[: chain.tensor.ndim]
        if shape != per_channel or (chain.flat and chain.local != (1, 1)):
            raise _Unreadable(f"{name} takes a constant that is not one number a channel")
        constant = constant.reshape(-1)
    if a.get("rounding_mode") is not None:
        raise _Unreadable("a division rounds")
    one, none = torch.ones_like(constant), torch.zeros_like(constant)
    if name in ("add", "sub"):
        chain.affine(one, constant * float(a["alpha"]) * (1 if name == "add" else -1))
    elif name == "rsub":
        chain.affine(-one * float(a["alpha"]), constant.clone())
    else:
        chain.affine(constant.clone() if name == "mul" else 1.0 / constant, none)


def _read_softmax(chain: _Chain, name: str, a: dict[str, Any], output: torch.Tensor) -> None:
    if a["dim"] % chain.tensor.ndim != 1 or a.get("half_to_float") or a.get("dtype") is not None:
        raise _Unreadable("a softmax is taken along another axis than the classes")
    chain.begin_head()
    if chain.local != (1, 1):
        raise _Unreadable("a softmax is taken over feature maps")
    chain.append(LayerKind.LOG_SOFTMAX if "log" in name else LayerKind.SOFTMAX)


def _read_shape(chain: _Chain, name: str, a: dict[str, Any], output: torch.Tensor) -> None:
    folded = chain.channels * chain.local[0] * chain.local[1]
    shape = tuple(output.shape)[1:]
    if shape == (folded,):
        chain.flat = True
    elif shape == (chain.channels, *chain.local) and (not chain.flat or chain.local == (1, 1)):
        chain.flat = False
    else:
        raise _Unreadable(f"{name} rearranges the feature maps to shape {shape}")


def _read_nothing(chain: _Chain, name: str, a: dict[str, Any], output: torch.Tensor) -> None:
    if output.dtype != torch.float32 or a.get("train"):
        raise _Unreadable(f"{name} changes the numbers it is given")


_Reader = Callable[[_Chain, str, dict[str, Any], torch.Tensor], None]
_READERS: dict[str, _Reader] = {
    **dict.fromkeys(("convolution", "_convolution", "conv2d"), _read_convolution),
    **dict.fromkeys(("linear", "addmm", "mm"), _read_linear),
    **dict.fromkeys(("max_pool2d", "max_pool2d_with_indices", "avg_pool2d"), _read_pool),
    **dict.fromkeys(("mean", "adaptive_avg_pool2d", "_adaptive_avg_pool2d"), _read_global_mean),
    **dict.fromkeys(("relu", "leaky_relu", "tanh", "sigmoid", "gelu"), _read_activation),
    **dict.fromkeys(
        ("native_batch_norm", "batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm"),
        _read_batch_norm,
    ),
    **dict.fromkeys(("add", "sub", "rsub", "mul", "div"), _read_arithmetic),
    **dict.fromkeys(("softmax", "_softmax", "log_softmax", "_log_softmax"), _read_softmax),
    **dict.fromkeys(
        ("view", "_unsafe_view", "reshape", "_reshape_alias", "flatten", "squeeze", "unsqueeze", "unflatten"),
        _read_shape,
    ),
    **dict.fromkeys(
        (
            "dropout",
            "native_dropout",
            "clone",
            "contiguous",
            "alias",
            "detach",
            "_to_copy",
            "feature_dropout",
        ),
        _read_nothing,
    ),
}


# ------------------------------------------------------------------------------------ running the model


@contextlib.contextmanager
def _precision(device: torch.device, precision: str) -> Iterator[None]:
    """CUDA arithmetic as asked for; cuDNN would take TF32 for convolutions by itself. A CPU knows float32."""
    if device.type != "cuda":
        yield
        return
    matmul, convolution = torch.backends.cuda.matmul, torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = matmul.fp32_precision, convolution.fp32_precision
    wanted = "ieee" if precision == "float32" else "tf32"
    matmul.fp32_precision = convolution.fp32_precision = wanted
    try:
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bfloat16"):
            yield
    finally:
        matmul.fp32_precision, convolution.fp32_precision = before


def run_model(model: torch.nn.Module, windows: torch.Tensor, *, precision: str = "float32") -> torch.Tensor:
    """What the model answers on windows, checked for its shape.

    Parameters
    ----------
    model
        Maps (M, 1, size, size) to (M, C).
    windows
        (M, 1, size, size) float32.
    precision
        "float32", "tf32" or "bfloat16"; the latter two matter on CUDA devices only.

    Returns
    -------
    (M, C) float32.

    Raises
    ------
    ModelError
        If the model is in training mode, does not take such windows, has weights of another dtype or on
        another device, or answers with something that is not (M, C) real numbers.
    """
    _check_state(model, windows.device)
    size = int(windows.shape[-1])
    try:
        with torch.no_grad(), _precision(windows.device, precision):
            answer = model(windows)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        sizes = _sizes_taken(model, size, windows.device)
        if sizes:
            raise ModelError(
                f"The model does not take windows of {size} x {size} voxels, but of {sizes}; "
                "give that as size, or another model."
            ) from error
        raise ModelError(
            f"The model cannot be run on windows of shape (M, 1, {size}, {size}) ({reason.rstrip('.')}); "
            "give a classifier that takes them."
        ) from error
    if not isinstance(answer, torch.Tensor) or answer.ndim != 2 or answer.shape[0] != windows.shape[0]:
        got = tuple(answer.shape) if isinstance(answer, torch.Tensor) else type(answer).__name__
        raise ModelError(
            f"The model answers {len(windows)} windows with {got}, not with one row of class scores for "
            "each, (M, C); give a classifier."
        )
    if not answer.is_floating_point() or answer.shape[1] == 0:
        raise ModelError(
            f"The model answers with {answer.shape[1]} values of {answer.dtype} for a window, "
            "not with real class scores; give a classifier."
        )
    return answer.to(torch.float32)


def _check_state(model: torch.nn.Module, device: torch.device) -> None:
    """Refuses what gives other answers than the user wants, or none."""
    if getattr(model, "training", False):
        raise ModelError(
            "The model is in training mode, in which dropout and batch normalisation give other answers; "
            "call model.eval() before."
        )
    for name, tensor in _tensors(model):
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise ModelError(f"The model's {name} is {tensor.dtype}, not float32; call model.float() before.")
        if tensor.device != device:
            raise ModelError(
                f"The model's {name} is on {tensor.device} and the image on {device}; move one to the other."
            )


def _tensors(model: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Parameters and buffers by name."""
    return [*model.named_parameters(), *model.named_buffers()]


def _sizes_taken(model: torch.nn.Module, size: int, device: torch.device) -> str:
    """Window sizes the model takes, in words; "" where none was found."""
    taken = []
    for other in range(4, 161):
        if other == size:
            continue
        try:
            with torch.no_grad():
                answer = model(torch.zeros(1, 1, other, other, device=device))
        except Exception:
            continue
        if isinstance(answer, torch.Tensor) and answer.ndim == 2:
            taken.append(other)
        if len(taken) == 16:
            break
    if not taken:
        return ""
    if taken == list(range(taken[0], taken[-1] + 1)) and len(taken) > 1:
        return f"{taken[0]} to {taken[-1]} voxels a side"
    return f"{' or '.join(map(str, taken))} voxels a side"


# ---------------------------------------------------------------------------------------------- reading

# Reading and checking takes tens of milliseconds; a detection asks for the same plan for every slab.
_cache: weakref.WeakKeyDictionary[torch.nn.Module, dict[tuple[int, int], Plan | str]]
_cache = weakref.WeakKeyDictionary()


def read_plan(model: torch.nn.Module, size: int) -> Plan | str:
    """The model as a plan, or why there is none.

    The plan has been compared with the model on random windows. It is kept for as long as the model lives
    and its weights stay the same.

    Parameters
    ----------
    model
        TorchScript (scripted, traced or frozen) or eager module mapping (M, 1, size, size) to (M, C), in
        evaluation mode.
    size
        Edge of a window in voxels.

    Returns
    -------
    The plan, or the reason that there is none, to stand behind "because".

    Raises
    ------
    ModelError
        If the model cannot be run on such windows at all.
    """
    key = (size, _fingerprint(model))
    plans = _cache.setdefault(model, {})
    if key not in plans:
        plans.clear()
        plans[key] = _read(model, size)
    return plans[key]


def _fingerprint(model: torch.nn.Module) -> int:
    """Checksum of the weights: in-place changes through `.data` leave no other trace."""
    checksum = int(getattr(model, "training", False))
    for name, tensor in _tensors(model):
        values = tensor.detach().cpu().contiguous()
        checksum = zlib.crc32(f"{name} {tensor.device} {tensor.dtype}".encode(), checksum)
        checksum = zlib.crc32(values.view(-1).view(torch.uint8).numpy().data, checksum)
    return checksum


def _device_of(model: torch.nn.Module) -> torch.device:
    tensors = _tensors(model)
    return tensors[0][1].device if tensors else torch.device("cpu")


def _read(model: torch.nn.Module, size: int) -> Plan | str:
    device = _device_of(model)
    generator = torch.Generator().manual_seed(0)
    # Three windows, so that the axis of the windows is not taken for one of the map.
    windows = torch.randn(3, 1, size, size, generator=generator).to(device)
    answer = run_model(model, windows)
    try:
        # Without the optimiser, TorchScript makes its operations one by one, as they are written.
        plainly = torch.jit.optimized_execution(False)  # type: ignore[attr-defined]
        with torch.no_grad(), plainly, _Recorder() as recorder:
            answer = model(windows)
        chain = _Chain(windows)
        for name, arguments, result in recorder.calls:
            chain.follow(name, arguments, result)
        if chain.tensor is not answer and chain.tensor.data_ptr() != answer.data_ptr():
            raise _Unreadable("its answer is not the end of the chain of layers")
        chain.begin_head()
        plan = Plan(size, tuple(chain.layers))
        _check(plan, model, device)
    except _Unreadable as reason:
        return str(reason)
    return plan


def _check(plan: Plan, model: torch.nn.Module, device: torch.device) -> None:
    """Compares the plan with the model on a few windows of noise of several heights and offsets."""
    size, extra = plan.size, 5
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(4, size + extra, size + extra, generator=generator)
    images *= torch.tensor([1.0, 0.1, 5.0, 1.0])[:, None, None]
    images += torch.tensor([0.0, 0.5, -2.0, 3.0])[:, None, None]
    places = torch.tensor([0, extra, 8, 22, extra * (extra + 1), (extra + 1) ** 2 - 1])
    index = (places + torch.arange(len(images))[:, None] * (extra + 1) ** 2).sort().values.reshape(-1)
    batch = images.unfold(1, size, 1).unfold(2, size, 1).reshape(-1, 1, size, size)[index].to(device)
    wanted = run_model(model, batch).cpu()
    stack = _native.as_stack(images.to(device))
    windows = _native.Windows(stack.window_shape(size), index.to(device))
    try:
        given = _native.score_windows(stack, size, plan.program(), windows).cpu()
    except ValueError as problem:  # more layers, or wider ones, than a CUDA block holds
        raise _Unreadable(str(problem).rstrip(".")) from problem
    if given.shape != wanted.shape:
        raise _Unreadable(f"it gives {wanted.shape[1]} classes and the plan {given.shape[1]}")
    error = (given - wanted).abs().max().item()
    if not error <= TOLERANCE * max(1.0, wanted.abs().max().item()):
        raise _Unreadable(
            f"the plan differs from the model by {error:.2g} on random windows, so the model does more than "
            "its layers show"
        )


# ------------------------------------------------------------------------------------------------- cost


@dataclass(frozen=True)
class Cost:
    """Estimated cost of a plan for one window asked for.

    Parameters
    ----------
    dense_flops, windows_flops
        Floating-point operations, halos of tiles included.
    dense_seconds, windows_seconds
        On one CPU thread.
    """

    dense_flops: float
    windows_flops: float
    dense_seconds: float
    windows_seconds: float


# Rates of one thread, in FLOP/s. Their ratio is what decides: on the published 6-16-120-84-2 network it was
# measured as 12 with AVX-512 and 7 with AVX2 (bench/bench_sliding.py); these are rates of a slow machine.
DENSE_RATE = 70e9
WINDOWS_RATE = 8e9
TILE = 64
# A membrane covers about this share of the pieces of a tile that the kernel divides it into.
PIECE_FRACTION = 0.25


def estimate_cost(plan: Plan, mask_fraction: float = 1.0) -> Cost:
    """Estimates what a window costs under either plan.

    Parameters
    ----------
    plan
        A plan that was read.
    mask_fraction
        Share of all windows that is asked for, 0 to 1.
    """
    head = sum(2.0 * layer.products() * layer.channels[1] for layer in plan.layers[plan.map_layers :])
    maps = alone = 0.0
    reach = sum((layer.kernel[0] - 1) * layer.step[0] for layer in plan.layers[: plan.map_layers + 1])
    for layer in plan.layers[: plan.map_layers]:
        reach -= (layer.kernel[0] - 1) * layer.step[0]
        per_value = 2.0 * layer.products() or float(math.prod(layer.kernel))
        maps += per_value * layer.channels[1] * (1 + reach / TILE) ** 2
        alone += per_value * layer.outputs_in_window
    dense = head + maps / max(mask_fraction, PIECE_FRACTION)
    windows = head + alone
    return Cost(dense, windows, dense / DENSE_RATE, windows / WINDOWS_RATE)


def explain_plan(
    model: torch.nn.Module,
    image_shape: Sequence[int],
    mask_fraction: float = 1.0,
    device: str | torch.device = "cpu",
    *,
    size: int = 50,
) -> str:
    """Says which plan `score_windows` would take, why, and what it costs.

    Parameters
    ----------
    model
        As for `score_windows`.
    image_shape
        (H, W) or (N, H, W).
    mask_fraction
        Share of the windows that the mask holds, 0 to 1.
    device
        Where it is to run.
    size
        Edge of a window in voxels.

    Raises
    ------
    InputError, ConfigError, DeviceError
        If the image is smaller than a window, the fraction is not one, or the device has no such name.
    ModelError
        If the model cannot be run on such windows.
    """
    shape = tuple(int(n) for n in image_shape)
    if len(shape) not in (2, 3) or min(shape[-2:]) < size:
        raise InputError(
            f"image_shape is {shape}; give (H, W) or (N, H, W) of at least one window, {size} x {size}."
        )
    if not 0 <= mask_fraction <= 1:
        raise ConfigError(f"mask_fraction is {mask_fraction!r}; give a number from 0 to 1.")
    count = math.prod(shape[:-2]) * (shape[-2] - size + 1) * (shape[-1] - size + 1)
    asked = round(count * mask_fraction)
    try:
        where = torch.device(device)
    except RuntimeError as error:
        raise DeviceError(f'device is {device!r}; give "cpu", "cuda" or "cuda:1".') from error
    lines = [f"{asked:,} of {count:,} windows of {size} x {size} are asked for on {where}."]
    plan = read_plan(model, size)
    if isinstance(plan, str):
        lines.append(f'Plan "windows": the model is run on batches of windows, because {plan}.')
        return "\n".join(lines)
    cost = estimate_cost(plan, mask_fraction)
    chosen = "dense" if cost.dense_seconds <= cost.windows_seconds else "windows"
    why = "feature maps are shared by all windows" if chosen == "dense" else "the windows share too little"
    lines.append(
        f'Plan "{chosen}": {why}. The model reads as: {plan.describe()}.\n'
        f'A window costs about {cost.dense_flops / 1e6:.3g} MFLOP by plan "dense" and '
        f'{cost.windows_flops / 1e6:.3g} MFLOP by plan "windows".\n'
        f"One CPU thread would take about {asked * cost.dense_seconds:.2g} s by the former and "
        f"{asked * cost.windows_seconds:.2g} s by the latter."
    )
    return "\n".join(lines)
