"""The code of a TorchScript archive: its classes and functions as syntax trees, which nothing executes."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field

from t3ssfast.models.foreign.refusal import Refusal, quoted

__all__ = ["ClassCode", "Code", "parse_code", "qualified_name"]

MAX_DEFINITIONS = 20_000
# Bounds time and memory of Python's parser, to 0.5 s and 100 MB. A U-Net on EfficientNet has 40,000.
MAX_TOKENS = 120_000
TOKEN = re.compile(rb'"(?:[^"\\\n]|\\.)*"|\w+|[^\w\s]')
QUOTE = ord('"')
# Python's own texts with a prefix; formatted ones keep its parser busy for minutes.
PREFIXED_TEXT = re.compile(rb'\w"')


@dataclass
class ClassCode:
    """A module's class: its methods, its constants as expressions, and the names of its parameters."""

    parameters: frozenset[str] = frozenset()
    methods: dict[str, ast.FunctionDef] = field(default_factory=dict)
    constants: dict[str, ast.expr] = field(default_factory=dict)


@dataclass
class Code:
    """All definitions of an archive by their qualified names, "__torch__.a.b.Name"."""

    classes: dict[str, ClassCode] = field(default_factory=dict)
    functions: dict[str, ast.FunctionDef] = field(default_factory=dict)


def parse_code(sources: Mapping[str, bytes]) -> Code:
    """Parse the files of an archive, given by the qualified name of their definitions' prefix.

    Raises
    ------
    Refusal
        A file is not Python's syntax, or holds anything but classes and functions.
    """
    code = Code()
    tokens = 0
    for prefix, source in sources.items():
        without_texts = TOKEN.sub(lambda match: b'""' if match[0][0] == QUOTE else match[0], source)
        tokens += sum(1 for _ in TOKEN.finditer(source))
        if tokens > MAX_TOKENS:
            raise Refusal(f"its code has over {MAX_TOKENS} words and signs")
        if PREFIXED_TEXT.search(without_texts) or b"'" in without_texts:
            raise Refusal(f"its code {quoted(prefix)} holds a text that TorchScript does not write")
        try:
            # Warnings about escapes in texts say nothing to the user, and are errors where warnings are.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(source.decode("ascii"))
        except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
            raise Refusal(f"its code {quoted(prefix)} cannot be parsed ({type(error).__name__})") from error
        for node in tree.body:
            if isinstance(node, ast.Import):  # written by old versions of PyTorch
                continue
            if not isinstance(node, ast.ClassDef | ast.FunctionDef):
                raise Refusal(f"its code has a statement outside of functions ({type(node).__name__})")
            name = f"{prefix}.{node.name}"
            if name in code.classes or name in code.functions:
                raise Refusal(f"its code defines {quoted(name)} twice")
            if len(code.classes) + len(code.functions) >= MAX_DEFINITIONS:
                raise Refusal(f"its code has over {MAX_DEFINITIONS} definitions")
            if isinstance(node, ast.ClassDef):
                code.classes[name] = _parse_class(node)
            else:
                code.functions[name] = node
    return code


def _parse_class(node: ast.ClassDef) -> ClassCode:
    found = ClassCode()
    for one in node.body:
        if isinstance(one, ast.FunctionDef) and one.name not in found.methods:
            found.methods[one.name] = one
        elif isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
            if one.value is not None:
                found.constants[one.target.id] = one.value
        elif isinstance(one, ast.Assign) and qualified_name(one.targets[0]) == "__parameters__":
            listed = one.value.elts if isinstance(one.value, ast.List) else []
            found.parameters = frozenset(str(e.value) for e in listed if isinstance(e, ast.Constant))
        elif not isinstance(one, ast.Assign | ast.Pass):  # buffers, annotations
            raise Refusal(f"its class {quoted(node.name)} holds a statement ({type(one).__name__})")
    return found


def qualified_name(node: ast.expr) -> str | None:
    """Return "a.b.c" for such an expression, else None."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else None
