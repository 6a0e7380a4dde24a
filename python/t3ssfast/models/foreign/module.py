"""A model file of others as a module: read once, and a graph of PyTorch's operators for each input shape."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

from torch import Tensor, fx, nn

from t3ssfast.models.foreign.archive import read_members
from t3ssfast.models.foreign.code import parse_code
from t3ssfast.models.foreign.evaluate import Program, build_graph
from t3ssfast.models.foreign.pickles import Instance, TensorRecord, read_pickle, read_tensor
from t3ssfast.models.foreign.refusal import Refusal, quoted

__all__ = ["Archive", "TranslatedModel"]

# Characters in the name of a module, "a.b.c.", of which nnU-Nets have 100; and fields of all modules, with
# the elements of their lists.
MAX_PREFIX, MAX_VALUES = 500, 500_000
# Tiles and their remainders, batches and theirs.
MAX_GRAPHS = 8
VERSIONS = frozenset(str(number) for number in range(1, 15))


class Archive:
    """The content of a TorchScript file: pickles and code, read without running anything."""

    def __init__(self, content: bytes, extra: str) -> None:
        self.content = content
        members = read_members(content, extra)
        for needed in ("data.pkl", "constants.pkl"):
            if needed not in members:
                raise Refusal(f"its archive has no {needed}")
        if members.get("byteorder", b"little") != b"little":
            raise Refusal("it was saved on a machine of another byte order")
        version = members.get("version", members.get(".data/version", b"")).decode("ascii", "replace").strip()
        if version not in VERSIONS:
            raise Refusal(f"its version is {version[:16]!a}")
        self._members = members
        root, constants = (
            read_pickle(members[f"{name}.pkl"], f"{name}.pkl") for name in ("data", "constants")
        )
        if not isinstance(root, Instance):
            raise Refusal("it does not hold a module")
        if not isinstance(constants, tuple):
            raise Refusal("it has no table of constants")
        self.root, self.constants = root, constants
        self.extra = members.get(f"extra/{extra}")

    def tensor(self, folder: str, record: TensorRecord) -> Tensor:
        """Copy a tensor out of the archive."""
        return read_tensor(record, folder, self._members)

    def state(self) -> dict[str, Tensor]:
        """Return parameters and buffers by their names, as `state_dict` of the saved module would."""
        return {name: self.tensor("data", record) for name, record, _ in _records(self.root)}

    def program(self) -> Program:
        """Parse the code."""
        sources = {
            member.removeprefix("code/").removesuffix(".py").replace("/", "."): source
            for member, source in self._members.items()
            if member.startswith("code/")
        }
        return Program(parse_code(sources), self.root, self.constants)


def _records(root: Instance) -> list[tuple[str, TensorRecord, Instance]]:
    """Return every tensor below a module with its name and the module that holds it."""
    found: list[tuple[str, TensorRecord, Instance]] = []
    waiting, seen, visited = [("", root)], {id(root)}, 0
    while waiting:
        prefix, instance = waiting.pop()
        if len(prefix) > MAX_PREFIX:
            raise Refusal("it holds modules in modules too deeply")
        inner = []
        for name, value in (instance.state or {}).items():
            visited += len(value) if isinstance(value, list) else 1
            if visited > MAX_VALUES:
                raise Refusal(f"its modules hold over {MAX_VALUES} values")
            for key, item in enumerate(value) if isinstance(value, list) else [("", value)]:
                if isinstance(item, TensorRecord):
                    found.append((f"{prefix}{name}" + (f".{key}" if key != "" else ""), item, instance))
            if isinstance(value, Instance) and id(value) not in seen:
                seen.add(id(value))
                inner.append((f"{prefix}{name}.", value))
        waiting += reversed(inner)
    return found


def _held(holder: nn.Module, name: str) -> Tensor:
    tensor = holder._parameters.get(name, holder._buffers.get(name))
    assert tensor is not None
    return tensor


class TranslatedModel(nn.Module):
    """A foreign model, rebuilt from PyTorch's own operators and from copies of its weights.

    A graph is built for each input shape and kept. `forward` raises `Refusal` for code that cannot be
    translated and `ShapeError`, a ValueError, for an input of a shape that the model does not take.
    """

    def __init__(self, archive: Archive) -> None:
        super().__init__()
        self.content = archive.content  # of the file, which `save_model` writes again
        self._program = archive.program()
        self._graphs: OrderedDict[tuple[int, ...], fx.GraphModule] = OrderedDict()
        self._lock = threading.Lock()
        self._places: dict[tuple[str, TensorRecord], tuple[nn.Module, str]] = {}
        self._numbers: dict[tuple[str, TensorRecord], Tensor] = {}
        self.training = False
        for name, record, owner in _records(archive.root):
            code = self._program.code.classes.get(owner.class_name)
            is_parameter = code is not None and name.rpartition(".")[2] in code.parameters
            self._add("data", record, name, archive, is_parameter=is_parameter)
        for number, record in enumerate(archive.constants):
            if (
                isinstance(record, TensorRecord)
                and record.size == ()
                and record.storage.dtype != "FloatStorage"
            ):
                # Sizes are computed from them, in their own precision.
                self._numbers["constants", record] = archive.tensor("constants", record)
            elif isinstance(record, TensorRecord):
                self._add("constants", record, f"constants.{number}", archive, is_parameter=False)

    def _add(
        self, folder: str, record: TensorRecord, name: str, archive: Archive, *, is_parameter: bool
    ) -> None:
        """Hold a tensor under its name in the file; the file's names cannot replace attributes."""
        *path, last = name.split(".")
        holder: nn.Module = self
        for part in path:
            holder = holder._modules.setdefault(part, nn.Module())  # type: ignore[assignment]
        if last in holder._buffers or last in holder._parameters:
            raise Refusal(f"it holds two tensors {quoted(name)}")
        key = folder, record
        if key in self._places:  # shared by several modules
            tensor = _held(*self._places[key])
        else:
            self._places[key] = holder, last
            tensor = archive.tensor(folder, record)
            if is_parameter and tensor.is_floating_point():
                tensor = nn.Parameter(tensor, requires_grad=False)
        if isinstance(tensor, nn.Parameter):
            holder._parameters[last] = tensor
        else:
            holder._buffers[last] = tensor

    def operators_for(self, shape: tuple[int, ...]) -> fx.GraphModule:
        """Return the graph of aten operators for one input shape."""
        with self._lock:
            if shape not in self._graphs:
                tensors = {key: _held(*place) for key, place in self._places.items()} | self._numbers
                while len(self._graphs) >= MAX_GRAPHS:
                    self._graphs.popitem(last=False)
                self._graphs[shape] = build_graph(self._program, tensors, shape)
            self._graphs.move_to_end(shape)
            return self._graphs[shape]

    def forward(self, image: Tensor) -> Any:
        """(N, ...) float32 -> the model's output."""
        return self.operators_for(tuple(image.shape))(image)

    def train(self, mode: bool = True) -> TranslatedModel:
        """Stay in evaluation mode, in which the graph was built."""
        return self

    def _apply(self, fn: Any, recurse: bool = True) -> TranslatedModel:
        # Moved or converted weights need new graphs.
        with self._lock:
            self._graphs.clear()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_graphs": OrderedDict(), "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._lock = threading.Lock()
