"""How each tensor operation of a model extends the chain of layers; one function per operation."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from t3ssfast.kernels.graph import operator_name
from t3ssfast.kernels.plan.chain import ChainBuilder
from t3ssfast.kernels.plan.layers import LayerKind, NoDensePlanError

__all__ = ["apply_operation"]


def _pair(value: Any, default: tuple[int, int] = (1, 1)) -> tuple[int, int]:
    """Return an int, [n] or [y, x] argument as (y, x); `default` for an empty list."""
    values = [value] if isinstance(value, int) else [int(v) for v in value]
    y, x = (values * 2)[:2] or default
    return y, x


def _convolution(chain: ChainBuilder, name: str, args: dict[str, Any], output: fx.Node) -> None:
    padding = args["padding"]
    if args.get("transposed") or (padding != "valid" and _pair(padding, (0, 0)) != (0, 0)):
        raise NoDensePlanError("a convolution pads its input, and what lies beyond a window is not zero")
    if args["groups"] != 1:
        raise NoDensePlanError("a convolution works in groups")
    weight = args["weight"]
    if weight.ndim != 4:
        raise NoDensePlanError("a convolution is not two-dimensional")
    kernel = (int(weight.shape[2]), int(weight.shape[3]))
    dilation = _pair(args["dilation"])
    # A convolution over the whole map of a window is a fully connected layer.
    linear = all((kernel[i] - 1) * dilation[i] + 1 == chain.map_size[i] for i in range(2))
    dense_dilation = chain.apply_kernel(kernel, _pair(args["stride"]), dilation, name)
    chain.append_weighted(weight, args["bias"], dense_dilation, linear)


def _linear(chain: ChainBuilder, name: str, args: dict[str, Any], output: fx.Node) -> None:
    if name == "linear":
        weight, bias, is_layer = args["weight"], args["bias"], True
    elif name == "addmm":
        weight, bias = args["mat2"].t(), args["self"]
        is_layer = args["mat1"] is chain.node and args["alpha"] == 1 and args["beta"] == 1
    else:
        weight, bias, is_layer = args["mat2"].t(), None, args["self"] is chain.node
    if not is_layer:
        raise NoDensePlanError("a matrix product is not of the form of a fully connected layer")
    if not chain.flat and chain.map_size != (1, 1):
        raise NoDensePlanError("a fully connected layer works on an unflattened map")
    if bias is not None and bias.ndim != 1:
        raise NoDensePlanError("a fully connected layer has a bias per window")
    weight = weight.reshape(weight.shape[0], chain.channels, *chain.map_size)
    chain.map_size, chain.flat = (1, 1), True
    chain.append_weighted(weight, bias, chain.stride, linear=True)


def _pool(chain: ChainBuilder, name: str, args: dict[str, Any], output: fx.Node) -> None:
    kernel = _pair(args["kernel_size"])
    if _pair(args["padding"], (0, 0)) != (0, 0):
        raise NoDensePlanError("a pooling pads its input, and what lies beyond a window is not empty")
    if args.get("divisor_override") is not None:
        raise NoDensePlanError("an average pooling has a divisor of its own")
    kind = LayerKind.AVERAGE_POOL if name.startswith("avg") else LayerKind.MAX_POOL
    dilation = _pair(args.get("dilation", 1))
    dense_dilation = chain.apply_kernel(kernel, _pair(args["stride"], kernel), dilation, name)
    if kernel != (1, 1):
        chain.append(kind, kernel=kernel, dilation=dense_dilation)


def _global_mean(chain: ChainBuilder, name: str, args: dict[str, Any], output: fx.Node) -> None:
    kernel = chain.map_size
    if name == "mean":
        axes = sorted(d % chain.ndim for d in args["dim"] or [])
        if chain.flat or axes != [2, 3] or args["dtype"] is not None:
            raise NoDensePlanError("a mean is taken over something else than the whole map of a channel")
        chain.flat = not args["keepdim"]
    elif _pair(args["output_size"]) != (1, 1):
        raise NoDensePlanError("an adaptive pooling does not end in one value")
    chain.map_size = (1, 1)
    if kernel != (1, 1):
        chain.append(LayerKind.AVERAGE_POOL, kernel=kernel, dilation=chain.stride)


def _activation(chain: ChainBuilder, name: str, args: dict[str, Any], output: fx.Node) -> None:
    slope = None
    if name == "leaky_relu":
        slope = torch.tensor([float(args["negative_slope"])], dtype=torch.float64)
    tanh_form = name == "gelu" and args["approximate"] == "tanh"
    chain.append(LayerKind.GELU_TANH if tanh_form else LayerKind[name.upper()], weight=slope)


def _batch_norm(chain: ChainBuilder, name: str, args: dict[str, Any], output: fx.Node) -> None:
    if args.get("training"):
        raise NoDensePlanError("a batch normalisation is in training mode")
    if chain.flat and chain.map_size != (1, 1):
        raise NoDensePlanError("a batch normalisation stands between the flattening and the next layer")
    mean, variance, weight, bias = (
        None if args[key] is None else args[key].detach().cpu().to(torch.float64)
        for key in ("running_mean", "running_var", "weight", "bias")
    )
    if mean is None or variance is None:
        raise NoDensePlanError("a batch normalisation has no running mean, so windows depend on each other")
    scale = 1.0 / torch.sqrt(variance + float(args["eps"] if "eps" in args else args["epsilon"]))
    scale = scale if weight is None else scale * weight
    shift = -mean * scale
    chain.append_affine(scale, shift if bias is None else shift + bias)


def _arithmetic(chain: ChainBuilder, name: str, args: dict[str, Any], output: fx.Node) -> None:
    first, second = args["self"], args["other"]
    if first is not chain.node:
        if name in ("sub", "div"):
            raise NoDensePlanError(f"{name} takes the feature maps away from a constant")
        first, second = second, first
    constant = torch.as_tensor(second).detach().cpu().to(torch.float64)
    if constant.numel() != 1:
        shape = (1,) * (chain.ndim - constant.ndim) + tuple(constant.shape)
        per_channel = (1, chain.channels, 1, 1)[: chain.ndim]
        if shape != per_channel or (chain.flat and chain.map_size != (1, 1)):
            raise NoDensePlanError(f"{name} takes a constant that is not one number a channel")
    constant = constant.reshape(-1).expand(chain.channels)
    if args.get("rounding_mode") is not None:
        raise NoDensePlanError("a division rounds")
    one, zero = torch.ones_like(constant), torch.zeros_like(constant)
    if name in ("add", "sub"):
        chain.append_affine(one, constant * float(args["alpha"]) * (1 if name == "add" else -1))
    elif name == "rsub":
        chain.append_affine(-one * float(args["alpha"]), constant.clone())
    else:
        chain.append_affine(constant.clone() if name == "mul" else 1.0 / constant, zero)


def _softmax(chain: ChainBuilder, name: str, args: dict[str, Any], output: fx.Node) -> None:
    if args["dim"] % chain.ndim != 1 or args.get("half_to_float") or args.get("dtype") is not None:
        raise NoDensePlanError("a softmax is taken along another axis than the classes")
    chain.ensure_head()
    if chain.map_size != (1, 1):
        raise NoDensePlanError("a softmax is taken over feature maps")
    chain.append(LayerKind.LOG_SOFTMAX if "log" in name else LayerKind.SOFTMAX)


def _shape(chain: ChainBuilder, name: str, args: dict[str, Any], output: fx.Node) -> None:
    shape = output.meta["shape"][1:]
    if shape == (chain.flat_size,):
        chain.flat = True
    elif shape == (chain.channels, *chain.map_size) and (not chain.flat or chain.map_size == (1, 1)):
        chain.flat = False
    else:
        raise NoDensePlanError(f"{name} rearranges the feature maps to shape {shape}")


def _identity(chain: ChainBuilder, name: str, args: dict[str, Any], output: fx.Node) -> None:
    if output.meta["dtype"] != torch.float32 or args.get("train"):
        raise NoDensePlanError(f"{name} changes the numbers it is given")


_NAMES: dict[Callable[[ChainBuilder, str, dict[str, Any], fx.Node], None], str] = {
    _convolution: "convolution _convolution conv2d",
    _linear: "linear addmm mm",
    _pool: "max_pool2d max_pool2d_with_indices avg_pool2d",
    _global_mean: "mean adaptive_avg_pool2d _adaptive_avg_pool2d",
    _activation: "relu leaky_relu tanh sigmoid gelu",
    _batch_norm: "native_batch_norm batch_norm _native_batch_norm_legit_no_training cudnn_batch_norm",
    _arithmetic: "add sub rsub mul div",
    _softmax: "softmax _softmax log_softmax _log_softmax",
    _shape: "view _unsafe_view reshape _reshape_alias flatten squeeze unsqueeze unflatten",
    _identity: "dropout native_dropout feature_dropout clone contiguous alias detach _to_copy",
}
_OPERATIONS = {name: operation for operation, names in _NAMES.items() for name in names.split()}


def apply_operation(chain: ChainBuilder, node: fx.Node) -> None:
    """Extend the chain by one operation of a graph."""
    inputs = [source for source in node.all_input_nodes if source.op != "get_attr"]
    if node.target is operator.getitem:
        if inputs[0] is chain.node and node.args[1] == 0:
            chain.node = node
        return
    name = operator_name(node)
    if len(inputs) != 1 or inputs[0] is not chain.node:
        raise NoDensePlanError(f"{name} takes up an earlier feature map again, so the layers are no chain")
    if name not in _OPERATIONS:
        raise NoDensePlanError(f"{name} is not among the layers that a plan can hold")
    if "shape" not in node.meta:  # of several outputs, the first
        first = [user for user in node.users if user.target is operator.getitem and user.args[1] == 0]
        if not first:
            raise NoDensePlanError(f"{name} turns the feature maps into a number")
        node.meta |= first[0].meta
    _OPERATIONS[name](chain, name, _arguments(node), node)
    shape: tuple[int, ...] = node.meta["shape"]
    expected = (chain.flat_size,) if chain.flat else (chain.channels, *chain.map_size)
    if shape[1:] != expected:
        raise NoDensePlanError(f"{name} gives a map of shape {shape[1:]}, not {expected}")
    chain.node = node


def _arguments(node: fx.Node) -> dict[str, Any]:
    """Return the arguments of a node by name, constants as tensors."""
    signature = node.target._schema.arguments  # type: ignore[union-attr]
    owner = node.graph.owning_module

    def value(argument: Any) -> Any:
        if isinstance(argument, fx.Node) and argument.op == "get_attr":
            return getattr(owner, str(argument.target))
        return argument

    named = {argument.name: argument.default_value for argument in signature}
    named |= dict(zip(named, map(value, node.args), strict=False))
    return named | {key: value(argument) for key, argument in node.kwargs.items()}
