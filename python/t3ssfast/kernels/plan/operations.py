"""What each tensor operation of a model means for the chain of layers; one reader an operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from t3ssfast.kernels.plan.chain import Chain, Unreadable
from t3ssfast.kernels.plan.layers import LayerKind

__all__ = ["follow"]


def _pair(value: Any, default: tuple[int, int] = (1, 1)) -> tuple[int, int]:
    """torch's int, [n] or [y, x] as (y, x); an empty list stands for `default`."""
    if isinstance(value, int):
        return value, value
    values = [int(v) for v in value]
    if not values:
        return default
    return (values[0], values[0]) if len(values) == 1 else (values[0], values[1])


def _read_convolution(chain: Chain, name: str, a: dict[str, Any], output: torch.Tensor) -> None:
    padding = a["padding"]
    if a.get("transposed") or (padding != "valid" and _pair(padding, (0, 0)) != (0, 0)):
        raise Unreadable("a convolution pads its input, and what lies beyond a window is not zero")
    if a["groups"] != 1:
        raise Unreadable("a convolution works in groups")
    weight = a["weight"]
    if weight.ndim != 4:
        raise Unreadable("a convolution is not two-dimensional")
    kernel = (int(weight.shape[2]), int(weight.shape[3]))
    dilation = _pair(a["dilation"])
    whole = all((kernel[i] - 1) * dilation[i] + 1 == chain.local[i] for i in range(2))
    step = chain.spatial(kernel, _pair(a["stride"]), dilation, name)
    if whole:
        # It sees a window's whole map, so it is a fully connected layer by another name.
        chain.weighted(weight, a["bias"], step, linear=True)
    else:
        chain.weighted(weight, a["bias"], step, linear=False)


def _read_linear(chain: Chain, name: str, a: dict[str, Any], output: torch.Tensor) -> None:
    if name == "linear":
        weight, bias = a["weight"], a["bias"]
    elif name == "addmm":
        weight, bias = a["mat2"].t(), a["self"]
        if a["mat1"] is not chain.tensor or a["alpha"] != 1 or a["beta"] != 1:
            raise Unreadable("a matrix product is not of the form of a fully connected layer")
    else:
        weight, bias = a["mat2"].t(), None
        if a["self"] is not chain.tensor:
            raise Unreadable("a matrix product is not of the form of a fully connected layer")
    if not chain.flat and chain.local != (1, 1):
        raise Unreadable("a fully connected layer works on an unflattened map")
    if bias is not None and bias.ndim != 1:
        raise Unreadable("a fully connected layer has a bias per window")
    weight = weight.reshape(weight.shape[0], chain.channels, *chain.local)
    step, chain.local, chain.flat = chain.step, (1, 1), True
    chain.weighted(weight, bias, step, linear=True)


def _read_pool(chain: Chain, name: str, a: dict[str, Any], output: torch.Tensor) -> None:
    kernel = _pair(a["kernel_size"])
    if _pair(a["padding"], (0, 0)) != (0, 0):
        raise Unreadable("a pooling pads its input, and what lies beyond a window is not empty")
    if a.get("divisor_override") is not None:
        raise Unreadable("an average pooling has a divisor of its own")
    kind = LayerKind.AVERAGE_POOL if name.startswith("avg") else LayerKind.MAX_POOL
    step = chain.spatial(kernel, _pair(a["stride"], kernel), _pair(a.get("dilation", 1)), name)
    if kernel != (1, 1):
        chain.append(kind, kernel=kernel, step=step)


def _read_global_mean(chain: Chain, name: str, a: dict[str, Any], output: torch.Tensor) -> None:
    kernel, step = chain.local, chain.step
    if name == "mean":
        axes = sorted(d % chain.tensor.ndim for d in a["dim"] or [])
        if chain.flat or axes != [2, 3] or a["dtype"] is not None:
            raise Unreadable("a mean is taken over something else than the whole map of a channel")
        chain.flat = not a["keepdim"]
    elif _pair(a["output_size"]) != (1, 1):
        raise Unreadable("an adaptive pooling does not end in one value")
    chain.local = (1, 1)
    if kernel != (1, 1):
        chain.append(LayerKind.AVERAGE_POOL, kernel=kernel, step=step)


def _read_activation(chain: Chain, name: str, a: dict[str, Any], output: torch.Tensor) -> None:
    if name == "leaky_relu":
        slope = torch.tensor([float(a["negative_slope"])], dtype=torch.float64)
        chain.append(LayerKind.LEAKY_RELU, weight=slope)
        return
    kind = LayerKind[name.upper()]
    if name == "gelu" and a["approximate"] == "tanh":
        kind = LayerKind.GELU_TANH
    chain.append(kind)


def _read_batch_norm(chain: Chain, name: str, a: dict[str, Any], output: torch.Tensor) -> None:
    if a.get("training"):
        raise Unreadable("a batch normalisation is in training mode")
    if chain.flat and chain.local != (1, 1):
        raise Unreadable("a batch normalisation stands between the flattening and the next layer")

    def numbers(key: str) -> torch.Tensor | None:
        return None if a[key] is None else a[key].detach().cpu().to(torch.float64)

    mean, variance = numbers("running_mean"), numbers("running_var")
    if mean is None or variance is None:
        raise Unreadable("a batch normalisation has no running mean, so windows depend on each other")
    scale = 1.0 / torch.sqrt(variance + float(a["eps"] if "eps" in a else a["epsilon"]))
    weight, bias = numbers("weight"), numbers("bias")
    scale = scale if weight is None else scale * weight
    shift = -mean * scale
    chain.affine(scale, shift if bias is None else shift + bias)


def _read_arithmetic(chain: Chain, name: str, a: dict[str, Any], output: torch.Tensor) -> None:
    first, second = a["self"], a["other"]
    if first is not chain.tensor:
        if name in ("sub", "div"):
            raise Unreadable(f"{name} takes the feature maps away from a constant")
        first, second = second, first
    constant = torch.as_tensor(second).detach().cpu().to(torch.float64)
    if constant.numel() == 1:
        constant = constant.reshape(1).expand(chain.channels)
    else:
        shape = (1,) * (chain.tensor.ndim - constant.ndim) + tuple(constant.shape)
        per_channel = (1, chain.channels, 1, 1)[: chain.tensor.ndim]
        if shape != per_channel or (chain.flat and chain.local != (1, 1)):
            raise Unreadable(f"{name} takes a constant that is not one number a channel")
        constant = constant.reshape(-1)
    if a.get("rounding_mode") is not None:
        raise Unreadable("a division rounds")
    one, none = torch.ones_like(constant), torch.zeros_like(constant)
    if name in ("add", "sub"):
        chain.affine(one, constant * float(a["alpha"]) * (1 if name == "add" else -1))
    elif name == "rsub":
        chain.affine(-one * float(a["alpha"]), constant.clone())
    else:
        chain.affine(constant.clone() if name == "mul" else 1.0 / constant, none)


def _read_softmax(chain: Chain, name: str, a: dict[str, Any], output: torch.Tensor) -> None:
    if a["dim"] % chain.tensor.ndim != 1 or a.get("half_to_float") or a.get("dtype") is not None:
        raise Unreadable("a softmax is taken along another axis than the classes")
    chain.begin_head()
    if chain.local != (1, 1):
        raise Unreadable("a softmax is taken over feature maps")
    chain.append(LayerKind.LOG_SOFTMAX if "log" in name else LayerKind.SOFTMAX)


def _read_shape(chain: Chain, name: str, a: dict[str, Any], output: torch.Tensor) -> None:
    folded = chain.channels * chain.local[0] * chain.local[1]
    shape = tuple(output.shape)[1:]
    if shape == (folded,):
        chain.flat = True
    elif shape == (chain.channels, *chain.local) and (not chain.flat or chain.local == (1, 1)):
        chain.flat = False
    else:
        raise Unreadable(f"{name} rearranges the feature maps to shape {shape}")


def _read_nothing(chain: Chain, name: str, a: dict[str, Any], output: torch.Tensor) -> None:
    if output.dtype != torch.float32 or a.get("train"):
        raise Unreadable(f"{name} changes the numbers it is given")


_Reader = Callable[[Chain, str, dict[str, Any], torch.Tensor], None]
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


def follow(chain: Chain, name: str, arguments: dict[str, Any], result: Any) -> None:
    """Takes one recorded call; ones that do not touch the chain only make constants."""
    flat_arguments: list[Any] = []
    for value in arguments.values():
        flat_arguments.extend(value if isinstance(value, list | tuple) else [value])
    used = [v for v in flat_arguments if isinstance(v, torch.Tensor) and id(v) in chain.seen]
    if not used:
        return
    if any(v is not chain.tensor for v in used) or len(used) > 1:
        raise Unreadable(f"{name} takes up an earlier feature map again, so the layers are no chain")
    output = result[0] if isinstance(result, list | tuple) else result
    if not isinstance(output, torch.Tensor):
        raise Unreadable(f"{name} turns the feature maps into a number")
    reader = _READERS.get(name)
    if reader is None:
        raise Unreadable(f"{name} is not among the layers that a plan can hold")
    reader(chain, name, arguments, output)
    expected = chain.shape(int(chain.tensor.shape[0]))
    if tuple(output.shape) not in expected:
        raise Unreadable(f"{name} gives a map of shape {tuple(output.shape)[1:]}, not {expected[0][1:]}")
    chain.tensor = output
    chain.seen.add(id(output))
