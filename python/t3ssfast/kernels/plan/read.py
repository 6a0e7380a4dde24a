"""Reads a classifier by running it once and watching which tensor operations it makes."""

from __future__ import annotations

import weakref
import zlib
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from t3ssfast.kernels.plan.chain import Chain, Unreadable
from t3ssfast.kernels.plan.check import check_plan
from t3ssfast.kernels.plan.layers import Plan
from t3ssfast.kernels.plan.operations import follow
from t3ssfast.kernels.plan.run import check_state, run_model, tensors_of

__all__ = ["read_plan"]


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


# Reading and checking takes tens of milliseconds; a detection asks for the same plan for every slab.
_Key = tuple[int, int, torch.device | None]
_cache: weakref.WeakKeyDictionary[torch.nn.Module, dict[_Key, Plan | str]]
_cache = weakref.WeakKeyDictionary()


def read_plan(model: torch.nn.Module, size: int, device: torch.device | None = None) -> Plan | str:
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
    device
        Where the windows are: the model must run there. None asks for nothing.

    Returns
    -------
    The plan, or the reason that there is none, to stand behind "because".

    Raises
    ------
    ModelError
        If the model cannot be run on such windows at all.
    """
    if device is not None:
        check_state(model, device)
    key = (size, _fingerprint(model), device)
    plans = _cache.setdefault(model, {})
    if key not in plans:
        for other in [k for k in plans if k[:2] != key[:2]]:
            del plans[other]
        if device is not None:
            # A misplaced model would be read where it is, and then fail later with a stranger's words.
            run_model(model, torch.zeros(1, 1, size, size, device=device))
        plans[key] = next(iter(plans.values())) if plans else _read(model, size)
    return plans[key]


def _fingerprint(model: torch.nn.Module) -> int:
    """Checksum of the weights: in-place changes through `.data` leave no other trace."""
    checksum = int(getattr(model, "training", False))
    for name, tensor in tensors_of(model):
        values = tensor.detach().cpu().contiguous()
        checksum = zlib.crc32(f"{name} {tensor.device} {tensor.dtype}".encode(), checksum)
        checksum = zlib.crc32(values.view(-1).view(torch.uint8).numpy().data, checksum)
    return checksum


def _device_of(model: torch.nn.Module) -> torch.device:
    tensors = tensors_of(model)
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
        chain = Chain(windows)
        for name, arguments, result in recorder.calls:
            follow(chain, name, arguments, result)
        if chain.tensor is not answer and chain.tensor.data_ptr() != answer.data_ptr():
            raise Unreadable("its answer is not the end of the chain of layers")
        chain.begin_head()
        return check_plan(Plan(size, tuple(chain.layers)), model, device)
    except Unreadable as reason:
        return str(reason)


def has_dense_plan(model: torch.nn.Module, size: int, device: torch.device | str = "cpu") -> bool:
    """Return whether a classifier can be run by plan "dense"."""
    return not isinstance(read_plan(model, size, torch.device(device)), str)
