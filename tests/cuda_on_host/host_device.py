"""A CUDA device played by the CPU: the extension `_core_on_host`, and PyTorch's side of it."""

from __future__ import annotations

import ctypes
import dataclasses
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace, TracebackType
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

DEVICE = torch.device("cuda", 0)
PATH = os.environ.get("T3SSFAST_CUDA_ON_HOST", "")
ORDERS = ("forward", "reversed", "shuffled")
UNINITIALISED = (torch.empty, torch.empty_like, torch.Tensor.new_empty)


def load_extension() -> Any:
    """Import `_core_on_host` in place of `t3ssfast._core`, which must not have been imported yet."""
    name = "t3ssfast._core"
    assert name not in sys.modules, "t3ssfast._core is already imported; run these tests by themselves"
    torch.get_num_threads()  # PyTorch first: it loads the OpenMP runtime that the extension shares with it
    loader = importlib.machinery.ExtensionFileLoader(name, PATH)
    spec = importlib.util.spec_from_file_location(name, PATH, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    sys.modules[name] = module
    return module


@dataclass(frozen=True)
class Counts:
    """What the lanes of one launch did.

    Bytes of memory that lanes read and wrote, barriers of all blocks, matrix products of warps, and sums and
    products in float64.
    """

    global_read: int
    global_written: int
    shared_read: int
    shared_written: int
    barriers: int
    products: int
    double_operations: int


class HostDevice(TorchFunctionMode):
    """While entered, tensors that PyTorch makes are the device's memory, and "cuda" is the CPU.

    New memory is filled with NaN, and stays allocated until the end, so that no address is used twice.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        super().__init__()
        self.library = library
        self.memory: dict[int, torch.Tensor] = {}
        # Requests for pinned memory.
        self.pinned = 0

    def __enter__(self) -> HostDevice:
        self.library.cuda_on_host_forget()
        super().__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self.memory.clear()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        def here(value: Any) -> Any:
            return torch.device("cpu") if isinstance(value, torch.device) else value

        options = {name: here(value) for name, value in (kwargs or {}).items()}
        # Without CUDA, PyTorch has no such memory.
        self.pinned += int(options.pop("pin_memory", False))
        result = func(*map(here, args), **options)
        for tensor in result if isinstance(result, tuple) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.register(tensor, func)
        return result

    def register(self, tensor: torch.Tensor, func: Callable[..., Any]) -> None:
        """Tell the extension of memory that it does not know yet."""
        with torch._C.DisableTorchFunction():
            storage = tensor.untyped_storage()
            begin, count = storage.data_ptr(), storage.nbytes()
            if count == 0 or begin in self.memory:
                return
            self.memory[begin] = tensor
            fresh = func in UNINITIALISED
            if fresh:
                torch.empty(0, dtype=torch.uint8).set_(storage).fill_(255)
            flags = func is torch.zeros and tensor.dtype is torch.uint8
            name = f"{getattr(func, '__name__', 'input')} of {str(tensor.dtype).removeprefix('torch.')}"
            self.library.cuda_on_host_register(
                ctypes.c_void_p(begin),
                ctypes.c_size_t(count),
                ctypes.c_size_t(min(tensor.element_size(), 4)),
                name.encode(),
                int(not fresh),
                int(fresh or func in (torch.zeros, torch.full)),
                int(flags),
            )

    def stack(self, image: torch.Tensor, index: int = 0, *, check: bool = True) -> Any:
        """Return a stack of images on a device; without `check` it may contain NaN and Inf."""
        from t3ssfast.kernels import _native

        stack = _native.as_stack(image.clone(), check=check)
        return dataclasses.replace(stack, device=torch.device("cuda", index))


class Extension:
    """The extension's side: devices, schedules, and what its launches did."""

    def __init__(self, module: Any) -> None:
        self.library = ctypes.CDLL(module.__file__)
        self.library.cuda_on_host_findings.restype = ctypes.c_char_p
        # Of the current stream: what is kept for a stream is not used in another session's memory.
        self.stream = 0

    def use(self, architecture: int = 90, devices: int = 1, error: int = 0) -> None:
        """Start anew with devices of an architecture; `error` is what counting them returns."""
        assert self.library.cuda_on_host_devices(architecture, devices, error)

    def schedule(self, order: str = "forward", late: bool = False, seed: int = 1) -> None:
        """Choose the order of lanes and blocks, and whether asynchronous copies land as late as allowed."""
        self.library.cuda_on_host_schedule(ORDERS.index(order), int(late), seed)

    def findings(self) -> list[str]:
        """Return the faults since the last call."""
        text: bytes = self.library.cuda_on_host_findings()
        return text.decode().splitlines()

    def counts(self) -> list[Counts]:
        """Return the counts of each launch since a device was entered."""
        width = len(dataclasses.fields(Counts))
        values = (ctypes.c_int64 * (100 * width))()
        number = self.library.cuda_on_host_counts(values, 100)
        assert number <= 100
        return [Counts(*values[width * i : width * (i + 1)]) for i in range(number)]

    @contextmanager
    def device(self) -> Iterator[HostDevice]:
        """Run kernels on the device; every fault that the extension finds fails the test."""
        self.stream += 1
        with HostDevice(self.library) as device:
            yield device
        faults = self.findings()
        assert not faults, "\n".join(faults)


def patch_torch(monkeypatch: pytest.MonkeyPatch, extension: Extension) -> None:
    """Give PyTorch the device's streams, and its way of choosing a device."""

    class Chosen:
        def __init__(self, index: int) -> None:
            self.index = index

        def __enter__(self) -> None:
            self.previous = extension.library.cuda_on_host_exchange_device(self.index)

        def __exit__(self, *_: object) -> None:
            extension.library.cuda_on_host_restore_device(self.previous)

    monkeypatch.setattr(
        torch.cuda, "current_stream", lambda index: SimpleNamespace(cuda_stream=extension.stream)
    )
    monkeypatch.setattr(torch.cuda, "device", Chosen)
