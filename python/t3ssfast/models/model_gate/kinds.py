"""Types as TorchScript writes them: read from code and from pickles, and compared with values.

PyTorch takes the value of a module's field from the pickle and its type from the code, and believes both.
A field that says one thing and holds another is where a file could make it read memory that is not there.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

from t3ssfast.models.model_gate.refusal import Refusal, quoted

__all__ = ["Kind", "parse_kind", "qualified_name"]

SIMPLE = frozenset(["Tensor", "int", "float", "bool", "str", "NoneType", "Device", "number"])
GENERIC = {"Optional": 1, "List": 1, "Final": 1, "Tuple": None}
DEEPEST = 8


@dataclass(frozen=True)
class Kind:
    """A type: its name, "__torch__..." for a class of the file, and its parameters."""

    name: str
    of: tuple[Kind, ...] = ()

    @property
    def is_class(self) -> bool:
        """Whether it is a class of the file."""
        return self.name.startswith("__torch__.")

    def names(self) -> set[str]:
        """Every name in it."""
        return {self.name}.union(*(inner.names() for inner in self.of))

    def __str__(self) -> str:
        if not self.of:
            return "Tuple[()]" if self.name == "Tuple" else self.name
        return f"{self.name}[{', '.join(map(str, self.of))}]"


def qualified_name(node: ast.expr) -> str | None:
    """ "a.b.c" for such an expression, else None."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return None
    name = ".".join([node.id, *reversed(parts)])
    return name if name.isascii() else None


def parse_kind(node: ast.expr, depth: int = 0) -> Kind:
    """The type that an annotation means.

    Raises
    ------
    Refusal
        It is none that a model for inference needs.
    """
    if depth > DEEPEST:
        raise Refusal("its code nests types too deeply")
    name = qualified_name(node)
    if name is not None and (name in SIMPLE or name.startswith("__torch__.")):
        return Kind(name)
    if isinstance(node, ast.Constant) and node.value is None:
        return Kind("NoneType")
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in GENERIC:
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        kinds = tuple(parse_kind(one, depth + 1) for one in inner)
        if GENERIC[node.value.id] in (None, len(kinds)):
            return Kind(node.value.id, kinds)
    raise Refusal(f"its code uses the type {quoted(ast.unparse(node))}")
