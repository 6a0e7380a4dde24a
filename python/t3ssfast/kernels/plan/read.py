"""Reading of a classifier as a plan from the graph of its operators, and the check of the plan."""

from __future__ import annotations

import weakref
import zlib
from dataclasses import dataclass, field, replace

import torch

from t3ssfast.kernels import _native
from t3ssfast.kernels.graph import graph_of
from t3ssfast.kernels.plan.chain import ChainBuilder
from t3ssfast.kernels.plan.layers import WINOGRAD_OFF, NoDensePlanError, Plan
from t3ssfast.kernels.plan.operations import apply_operation
from t3ssfast.kernels.plan.run import check_model, named_tensors, run_model

__all__ = ["has_dense_plan", "read_plan"]

# Largest difference between plan and model, relative to the largest score or 1.
TOLERANCE = 1e-4


@dataclass
class _CacheEntry:
    """The result of reading a model: a plan, or the reason why there is none."""

    size: int
    checksum: int
    plan: Plan | None
    reason: str
    devices: set[torch.device] = field(default_factory=set)


# Reading and checking a model takes tens of milliseconds, and a detection needs the same plan for every slab.
_cache: weakref.WeakKeyDictionary[torch.nn.Module, _CacheEntry] = weakref.WeakKeyDictionary()


def read_plan(model: torch.nn.Module, size: int, device: torch.device | None = None) -> Plan:
    """Read a model as a plan, and compare the plan with the model on random windows; cached by its weights.

    Raises `NoDensePlanError` if there is no plan, and `ModelError` if the model cannot be run on windows of
    `size` x `size` pixels on `device`; None leaves the device unchecked.
    """
    if device is not None:
        check_model(model, device)
    checksum = _checksum(model)
    entry = _cache.get(model)
    if entry is not None and (entry.size, entry.checksum) != (size, checksum):
        entry = None
    if device is not None and (entry is None or device not in entry.devices):
        # Raises a clear error if the model's code is tied to another device.
        run_model(model, torch.zeros(1, 1, size, size, device=device))
    if entry is None:
        try:
            entry = _CacheEntry(size, checksum, _read_chain(model, size), "")
        except NoDensePlanError as error:
            entry = _CacheEntry(size, checksum, None, str(error))
        _cache[model] = entry
    if device is not None:
        entry.devices.add(device)
    if entry.plan is None:
        raise NoDensePlanError(entry.reason)
    return entry.plan


def has_dense_plan(model: torch.nn.Module, size: int, device: torch.device | None = None) -> bool:
    """Return whether `read_plan` finds a plan; raise `ModelError` as it does."""
    try:
        read_plan(model, size, device)
    except NoDensePlanError:
        return False
    return True


def _checksum(model: torch.nn.Module) -> int:
    """Return a checksum of the weights, the only way to notice in-place changes through `.data`."""
    checksum = int(getattr(model, "training", False))
    on_device: dict[tuple[torch.device, int], list[torch.Tensor]] = {}
    for name, tensor in named_tensors(model):
        description = f"{name} {tuple(tensor.shape)} {tensor.device} {tensor.dtype}"
        checksum = zlib.crc32(description.encode(), checksum)
        values = tensor.detach().contiguous().view(-1)
        if values.device.type == "cpu":
            checksum = zlib.crc32(values.view(torch.uint8).numpy().data, checksum)
        elif len(values):
            words = values.view(_WORDS[values.element_size()])
            on_device.setdefault((words.device, words.element_size()), []).append(words)
    for tensors in on_device.values():
        checksum = zlib.crc32(_sums(tensors).cpu().numpy().data, checksum)
    return checksum


# Integers of as many bytes as a weight: not all tensors can be viewed as bytes four at a time.
_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64, 16: torch.int64}


def _sums(tensors: list[torch.Tensor]) -> torch.Tensor:
    """Return the sum of integers, and that with weights which tell their order.

    Computed where the integers are, by as many operators for many tensors as for one: starting an operator
    takes a device longer than adding the weights of a classifier.
    """
    words = torch.cat(tensors)
    positions = torch.arange(1, len(words) + 1, device=words.device)
    return torch.stack([words.sum(dtype=torch.int64), (words * positions).sum()])


def _read_chain(model: torch.nn.Module, size: int) -> Plan:
    tensors = named_tensors(model)
    device = tensors[0][1].device if tensors else torch.device("cpu")
    # Three windows, so that the batch axis differs in length from the channel axis.
    windows = torch.randn(3, 1, size, size, generator=torch.Generator().manual_seed(0)).to(device)
    run_model(model, windows)
    graph = graph_of(model, windows).graph
    chain = ChainBuilder(next(iter(graph.find_nodes(op="placeholder"))))
    for node in graph.nodes:
        if node.op == "call_function":
            apply_operation(chain, node)
    (answer,) = graph.output_node().args
    if chain.node is not answer:
        raise NoDensePlanError("its answer is not the end of the chain of layers")
    chain.ensure_head()
    return _check_plan(Plan(size, tuple(chain.layers)), model, device)


def _check_plan(plan: Plan, model: torch.nn.Module, device: torch.device) -> Plan:
    """Return a plan that agrees with its model on noise, with Winograd off if only that path differs."""
    size, margin = plan.size, 5
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(4, size + margin, size + margin, generator=generator)
    images *= torch.tensor([1.0, 0.1, 5.0, 1.0])[:, None, None]
    images += torch.tensor([0.0, 0.5, -2.0, 3.0])[:, None, None]
    corners = torch.tensor([0, margin, 8, 22, margin * (margin + 1), (margin + 1) ** 2 - 1])
    index = (corners + torch.arange(len(images))[:, None] * (margin + 1) ** 2).sort().values.reshape(-1)
    batch = images.unfold(1, size, 1).unfold(2, size, 1).reshape(-1, 1, size, size)[index].to(device)
    expected = run_model(model, batch).cpu()
    stack = _native.as_stack(images.to(device))
    windows = _native.Windows(stack.window_shape(size), index.to(device))
    tolerance = TOLERANCE * max(1.0, expected.abs().max().item())

    def max_error(min_windows: int) -> float:
        try:
            scores = _native.score_windows(
                stack, size, plan.program(), windows, winograd_min_windows=min_windows
            )
        except ValueError as error:  # more or wider layers than fit a CUDA block
            raise NoDensePlanError(str(error).rstrip(".")) from error
        if scores.shape != expected.shape:
            raise NoDensePlanError(f"it gives {expected.shape[1]} classes and the plan {scores.shape[1]}")
        return float((scores.cpu() - expected).abs().max().item())

    error = max_error(WINOGRAD_OFF)
    # Negated, so that NaN fails.
    if not error <= tolerance:
        raise NoDensePlanError(
            f"the plan differs from the model by {error:.2g} on random windows, so the model does more "
            "than its layers show"
        )
    if plan.winograd_min_windows == WINOGRAD_OFF or device.type != "cpu" or max_error(1) <= tolerance:
        return plan
    return replace(plan, winograd=False)
