"""Edits of an archive's code at the level of its syntax tree.

Each edit takes a random generator and an archive, changes it, and says what it did; None if it did not apply.
"""

from __future__ import annotations

import ast
import contextlib
import random
import string
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from archive_tree import Archive
from hostile_statements import (
    DEFINED,
    DTYPES,
    FLOATS,
    FOREIGN_CALLS,
    INTEGERS,
    LANGUAGE_STATEMENTS,
    NETWORK_CALLS,
    STRINGS,
    TYPES,
)
from pickle_edits import Edit


@dataclass
class Source:
    """A code file, parsed, with positions of nodes in its text."""

    archive: Archive
    name: str
    text: str
    tree: ast.Module

    def replace(self, node: ast.AST, text: str) -> None:
        start, end = self.span(node)
        self.archive.code[self.name] = self.text[:start] + text + self.text[end:]

    def span(self, node: Any) -> tuple[int, int]:
        starts = [0]
        for line in self.text.splitlines(keepends=True):
            starts.append(starts[-1] + len(line))
        return starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset

    def segment(self, node: ast.AST) -> str:
        start, end = self.span(node)
        return self.text[start:end]

    def insert(self, line: int, text: str) -> None:
        """Insert lines before the line of a number counted from 1."""
        lines = self.text.splitlines(keepends=True)
        lines.insert(line - 1, text + "\n")
        self.archive.code[self.name] = "".join(lines)


def _source(rng: random.Random, archive: Archive) -> Source | None:
    """Parse a code file that earlier edits left parsable: often that of the outermost class."""
    names = list(archive.code)
    root = getattr(getattr(archive.data, "type", None), "module", "")
    outermost = f"archive/code/{root.replace('.', '/')}.py"
    name = outermost if outermost in archive.code and rng.random() < 0.3 else rng.choice(names)
    text = archive.code[name]
    if len(text) > 200_000 or not text.isascii():
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(SyntaxError, ValueError, RecursionError, MemoryError):
            return Source(archive, name, text, ast.parse(text))
    return None


@dataclass
class Place:
    """A function to insert into: the names that its holes may take."""

    function: ast.FunctionDef
    names: list[str]
    cls: str
    here: str

    @property
    def self_name(self) -> str:
        return self.function.args.args[0].arg if self.function.args.args else "self"


def _place(rng: random.Random, source: Source) -> Place | None:
    here = source.name.removeprefix("archive/code/").removesuffix(".py").replace("/", ".")
    found = []
    for node in source.tree.body:
        if isinstance(node, ast.FunctionDef):
            found.append((node, "Nothing"))
        elif isinstance(node, ast.ClassDef):
            found += [(part, node.name) for part in node.body if isinstance(part, ast.FunctionDef)]
    if not found:
        return None
    function, cls = rng.choice(found)
    names = [
        part.arg
        for part in function.args.args
        if isinstance(part.annotation, ast.Name) and part.annotation.id == "Tensor"
    ]
    return Place(function, names or ["input"], f"{here}.{cls}", here)


class _Holes(string.Formatter):
    """Fill the holes of a template with random values."""

    def __init__(self, rng: random.Random, place: Place) -> None:
        self.rng = rng
        self.place = place
        self.fresh = f"_v{rng.randrange(1000)}"
        self.one = rng.choice(place.names)

    def get_value(self, key: int | str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        pools: dict[int | str, Sequence[str]] = {
            "i": INTEGERS,
            "n": ("0", "1", "2", "3", "-1", "5"),
            "f": FLOATS,
            "s": STRINGS,
            "t": TYPES,
            "d": DTYPES,
            "y": self.place.names,
        }
        if key in pools:
            return self.rng.choice(pools[key])
        named = {"x": self.one, "v": self.fresh, "self": self.place.self_name, "cls": self.place.cls}
        return {**named, "here": self.place.here}[str(key)]


def _insert_statement(rng: random.Random, archive: Archive) -> str | None:
    source = _source(rng, archive)
    place = _place(rng, source) if source else None
    if source is None or place is None or not place.function.body:
        return None
    before = rng.choice(place.function.body)
    known = [
        target.id
        for statement in place.function.body
        if isinstance(statement, ast.Assign) and statement.lineno < before.lineno
        for target in statement.targets
        if isinstance(target, ast.Name)
    ]
    if known and rng.random() < 0.5:
        place.names = known
    template = rng.choice(rng.choices((NETWORK_CALLS, FOREIGN_CALLS, LANGUAGE_STATEMENTS), (5, 2, 3))[0])
    holes = _Holes(rng, place)
    lines = holes.vformat(template, (), {}).split("|")
    if template.startswith("{v} = ") and rng.random() < 0.6:
        # The value is used, so that nothing may drop it.
        lines.append(
            f"{holes.one} = torch.mul({holes.one}, torch.add(1, torch.mul(torch.dim({holes.fresh}), 0)))"
        )
    indent = " " * before.col_offset
    source.insert(before.lineno, "\n".join(indent + line for line in lines))
    return f"statement {template[:70]!r}"


def _add_definition(rng: random.Random, archive: Archive) -> str | None:
    source = _source(rng, archive)
    place = _place(rng, source) if source else None
    if source is None or place is None:
        return None
    template = rng.choice(DEFINED)
    text = _Holes(rng, place).vformat(template, (), {}).replace("|", "\n")
    if template.startswith("  ") and rng.random() < 0.7:
        # Fields stand at the top of a class.
        line = next((part.lineno + 1 for part in source.tree.body if isinstance(part, ast.ClassDef)), None)
        if line is None:
            return None
        source.insert(line, text)
    else:
        archive.code[source.name] = source.text.rstrip("\n") + "\n" + text + "\n"
    return f"definition {template[:70]!r}"


def _nodes(source: Source, *types: type[ast.AST]) -> list[Any]:
    return [node for node in ast.walk(source.tree) if isinstance(node, types) and hasattr(node, "lineno")]


def _change_literal(rng: random.Random, archive: Archive) -> str | None:
    source = _source(rng, archive)
    literals = _nodes(source, ast.Constant, ast.List, ast.Tuple) if source else []
    if source is None or not literals:
        return None
    node = rng.choice(literals)
    old = source.segment(node)
    value = getattr(node, "value", None)
    pools = [
        INTEGERS,
        FLOATS,
        STRINGS,
        ("[]", "[1]", "()", "(1, 2)", "[[1]]", "[None]", "{}", "[1] * 1000", "self", "input"),
    ]
    pool = rng.choice(pools)
    if isinstance(value, int) and rng.random() < 0.7:
        pool = INTEGERS
    elif isinstance(node, ast.List) and rng.random() < 0.7:
        inside = [source.segment(part) for part in node.elts]
        size = rng.choice([0, 1, max(len(inside) - 1, 0), len(inside) + 1, 50, 2000])
        new = "[" + ", ".join(((inside or ["1"]) * (size + 1))[:size]) + "]"
        source.replace(node, new)
        return f"literal {old[:30]!r} of {size} elements"
    new = rng.choice(pool)
    source.replace(node, new)
    return f"literal {old[:30]!r} becomes {new[:30]!r}"


def _change_arguments(rng: random.Random, archive: Archive) -> str | None:
    source = _source(rng, archive)
    calls = [node for node in _nodes(source, ast.Call) if node.args] if source else []
    if source is None or not calls:
        return None
    call = rng.choice(calls)
    arguments = [source.segment(part) for part in call.args]
    arguments += [f"{part.arg}={source.segment(part.value)}" for part in call.keywords]
    what = rng.choice(["drop", "double", "swap", "append", "prepend", "keyword", "many", "starred", "nest"])
    k = rng.randrange(len(arguments))
    if what == "drop":
        del arguments[k]
    elif what == "double":
        arguments.insert(k, arguments[k])
    elif what == "swap":
        rng.shuffle(arguments)
    elif what == "append":
        arguments.append(rng.choice([*INTEGERS[:20], *FLOATS[:10], "None", "[1]", "self", '"a"']))
    elif what == "prepend":
        arguments.insert(0, rng.choice([*INTEGERS[:20], "None", "self"]))
    elif what == "keyword":
        names = (
            "out",
            "dtype",
            "device",
            "layout",
            "memory_format",
            "requires_grad",
            "self",
            "input",
            "alpha",
            "a b",
            "dim",
        )
        arguments.append(f"{rng.choice(names)}={rng.choice([*DTYPES, arguments[0]])}")
    elif what == "many":
        arguments *= rng.choice([10, 300])
    elif what == "starred":
        arguments[k] = rng.choice(["*", "**"]) + arguments[k]
    else:
        arguments[k] = f"{source.segment(call.func)}({', '.join(arguments)})"
    source.replace(call, f"{source.segment(call.func)}({', '.join(arguments)})")
    return f"arguments: {what}"


def _change_name(rng: random.Random, archive: Archive) -> str | None:
    """Another function, attribute, variable or type where one stands."""
    source = _source(rng, archive)
    if source is None:
        return None
    kinds = {
        "call": [node.func for node in _nodes(source, ast.Call)],
        "name": _nodes(source, ast.Name),
        "attribute": _nodes(source, ast.Attribute),
        "annotation": [node.annotation for node in _nodes(source, ast.arg, ast.AnnAssign) if node.annotation],
        "return": [node.returns for node in _nodes(source, ast.FunctionDef) if node.returns],
    }
    what = rng.choice(sorted(kind for kind, nodes in kinds.items() if nodes) or ["none"])
    if what == "none":
        return None
    node = rng.choice(kinds[what])
    old = source.segment(node)
    if what in ("annotation", "return"):
        new = rng.choice(TYPES)
    elif what == "call":
        operators = sorted(
            {
                line.split("torch.", 1)[1].split("(")[0]
                for line in NETWORK_CALLS + FOREIGN_CALLS
                if "= torch." in line
            }
        )
        new = rng.choice(
            ["torch." + rng.choice(operators), rng.choice([source.segment(part) for part in kinds["call"]])]
        )
    else:
        new = rng.choice(
            [source.segment(part) for part in kinds[what]]
            + ["self", "torch", "CONSTANTS", "_nothing", "None"]
        )
    source.replace(node, new)
    return f"{what} {old[:30]!r} becomes {new[:40]!r}"


def _move_statement(rng: random.Random, archive: Archive) -> str | None:
    """Drop, double or move a statement of a function or class, or a whole function."""
    source = _source(rng, archive)
    if source is None:
        return None
    bodies = [
        node.body
        for node in ast.walk(source.tree)
        if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Module))
    ]
    body = rng.choice([body for body in bodies if body] or [[]])
    if not body:
        return None
    node: Any = rng.choice(body)
    lines = source.text.splitlines(keepends=True)
    part = lines[node.lineno - 1 : node.end_lineno]
    what = rng.choice(["drop", "double", "move", "many"])
    rest = lines[: node.lineno - 1] + lines[node.end_lineno :]
    if what == "double":
        rest = lines[: node.end_lineno] + part + lines[node.end_lineno :]
    elif what == "many":
        rest = lines[: node.end_lineno] + part * rng.choice([20, 400]) + lines[node.end_lineno :]
    elif what == "move":
        k = rng.randrange(len(rest) + 1)
        rest[k:k] = part
    archive.code[source.name] = "".join(rest)
    return f"statement: {what}"


def _grow(rng: random.Random, archive: Archive) -> str | None:
    """Depth, length and doubling: of expressions, lines, calls, tuples, tensors, types and blocks."""
    source = _source(rng, archive)
    place = _place(rng, source) if source else None
    if source is None or place is None or not place.function.body:
        return None
    x, here, indent = place.names[0], place.here, " " * place.function.body[0].col_offset
    n = rng.choice([10, 40, 200, 1500])
    few = min(n, 40)
    grown: dict[str, Callable[[], list[str]]] = {
        "nested calls": lambda: [f"{x} = " + "torch.relu(" * n + x + ")" * n],
        "nested parentheses": lambda: [f"_0 = {'(' * n}{x}{')' * n}"],
        "nested lists": lambda: [f"_0 = {'[' * n}{']' * n}"],
        "attributes": lambda: [f"_0 = {x}" + ".data" * n],
        "unary": lambda: ["_0 = " + "-" * n + "1"],
        "straight line": lambda: [f"{x} = torch.relu({x})"] * n,
        "doubling tuples": lambda: (
            [f"_t0 = ({x}, {x})"] + [f"_t{k + 1} = (_t{k}, _t{k})" for k in range(few)]
        ),
        "doubling lists": lambda: [f"_t0 = [{x}, {x}]"] + [f"_t{k + 1} = [_t{k}, _t{k}]" for k in range(few)],
        "doubling tensors": lambda: [f"{x} = torch.cat([{x}, {x}], {rng.choice([0, 1, 2])})"] * few,
        "doubling sums": lambda: [f"{x} = torch.add({x}, {x})"] * n,
        "growing pads": lambda: [f"{x} = torch.constant_pad_nd({x}, [1000, 1000, 1000, 1000])"] * few,
        "growing sizes": lambda: [f"{x} = torch.upsample_nearest2d({x}, None, [2., 2.])"] * few,
        "nested blocks": lambda: [" " * (2 * k) + "if True:" for k in range(n)] + [" " * (2 * n) + "pass"],
        "wide cat": lambda: [f"_0 = torch.cat([{', '.join([x] * n)}], 1)"],
        "wide call": lambda: [f"_0 = torch.relu({', '.join([x] * n)})"],
        "long literal": lambda: [f"_0 = [{', '.join(['1'] * n * 20)}]"],
        "doubling functions": lambda: [f"{x} = {here}.g0({x}, )"],
        "recursion": lambda: [f"{x} = {here}.r({x}, )"],
        "self": lambda: [f"{x} = ({place.self_name}).{place.function.name}({x}, )"],
    }
    what = rng.choice(list(grown))
    source.insert(place.function.body[0].lineno, "\n".join(indent + line for line in grown[what]()))
    text = archive.code[source.name].rstrip("\n") + "\n"
    if what == "doubling functions":
        calls = [
            f"def g{k}(x: Tensor) -> Tensor:\n  return {here}.g{k + 1}({here}.g{k + 1}(x, ), )\n"
            for k in range(few)
        ]
        archive.code[source.name] = (
            text + "".join(calls) + f"def g{few}(x: Tensor) -> Tensor:\n  return torch.relu(x)\n"
        )
    elif what == "recursion":
        archive.code[source.name] = text + (
            f"def r(x: Tensor) -> Tensor:\n  return {here}.s(x, )\n"
            f"def s(x: Tensor) -> Tensor:\n  return {here}.r(x, )\n"
        )
    return f"{what}, {n}"


def _harmless_statement(rng: random.Random, archive: Archive) -> str | None:
    """An operator whose answer nothing uses."""
    source = _source(rng, archive)
    place = _place(rng, source) if source else None
    if source is None or place is None or place.function.name != "forward" or place.names == ["input"]:
        return None
    first = place.function.body[0]
    source.insert(first.lineno, " " * first.col_offset + f"_unused = torch.relu({place.names[0]})")
    return "an unused operator"


EDITS: tuple[Edit, ...] = (
    _insert_statement, _add_definition, _change_literal, _change_arguments, _change_name, _move_statement,
    _grow,
)  # fmt: skip
# Edits of literals and arguments stay nearest to honest code.
WEIGHTS = (10.0, 3.0, 10.0, 6.0, 5.0, 2.0, 3.0)
HARMLESS: tuple[Edit, ...] = (_harmless_statement,)
