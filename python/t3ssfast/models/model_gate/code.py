"""TorchScript code, checked against a grammar of what inference needs, and printed anew.

TorchScript serialises code in a subset of Python's syntax. It is parsed here with Python's `ast` (which runs
nothing), each node is taken only if it is one that PyTorch prints for an honest network, and what was taken
is printed again from the tree. So PyTorch's own parser never sees a character that was not understood here,
and cannot understand it differently.
"""

from __future__ import annotations

import ast
import keyword
import math
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from t3ssfast.models.model_gate.kinds import Kind, parse_kind, qualified_name
from t3ssfast.models.model_gate.operators import LIST_ARGUMENT, POSITIVE_DIVISOR, PRIM, TORCH
from t3ssfast.models.model_gate.refusal import Refusal, quoted

__all__ = ["vet_code"]

# Names with a meaning of their own in serialised code, which nothing else may be called.
_RESERVED = """
torch ops __torch__ CONSTANTS annotate unchecked_cast uninitialized getattr setattr hasattr isinstance super
range int float bool str list tuple dict len print fork inf nan infj nanj math
Tensor Module Optional List Tuple Dict Final NoneType Device number
"""
RESERVED = frozenset(_RESERVED.split())
# PyTorch takes classes of these names for its own in C++, or gives their fields types they do not declare.
MANGLED = re.compile(r"\.___torch_mangle_\d+", re.ASCII)
TAKEN_NAMES = re.compile(r"__torch__\.torch\.(classes|distributed)\b|__torch__\.torch\..*quantized", re.ASCII)
CONVERSIONS = frozenset(["int", "float", "bool", "str"])
# Of the others PyTorch runs __setstate__ on loading, and some stand in for what it calls itself.
HARMLESS_DUNDERS = frozenset(["__len__", "__contains__"])
# A cast without a check may only claim what PyTorch looks at again wherever it is used.
CHECKED_ON_USE = frozenset(["Tensor", "int", "float", "bool", "str", "NoneType", "Optional", "List"])
DEEPEST = 60
MOST_DEFINITIONS = 20_000
# Classes that hold classes, functions that call functions: PyTorch follows them on its stack.
LONGEST_CHAIN = 200
INDENT = "  "


@dataclass
class _Class:
    """A class of the archive: its fields, its constants and its methods, as trees."""

    name: str
    fields: dict[str, Kind] = field(default_factory=dict)
    constants: dict[str, tuple[Kind, ast.expr]] = field(default_factory=dict)
    lists: dict[str, list[str]] = field(default_factory=dict)
    methods: dict[str, ast.FunctionDef] = field(default_factory=dict)


@dataclass
class _File:
    """A file of the archive: its definitions in order."""

    prefix: str
    definitions: list[_Class | ast.FunctionDef] = field(default_factory=list)


def vet_code(
    sources: Mapping[str, bytes], constants: int
) -> tuple[dict[str, bytes], dict[str, dict[str, Kind]]]:
    """Check the code of an archive and print it anew.

    Parameters
    ----------
    sources
        Content of each file, by the qualified name of its definitions' prefix ("__torch__.a.b").
    constants
        How many tensors the table of constants holds.

    Returns
    -------
    The files, printed; and the fields of each class, by its qualified name.

    Raises
    ------
    Refusal
        Something in it is not of the grammar.
    """
    files = [_parse(prefix, source) for prefix, source in sources.items()]
    classes: dict[str, _Class] = {}
    functions: dict[str, ast.FunctionDef] = {}
    for file in files:
        for definition in file.definitions:
            name = f"{file.prefix}.{definition.name}"
            if TAKEN_NAMES.match(MANGLED.sub("", name)):
                raise Refusal(f"its code defines {quoted(name)}, which is a name of PyTorch's own")
            if name in classes or name in functions or len(classes) + len(functions) > MOST_DEFINITIONS:
                raise Refusal(f"its code defines {quoted(name)} twice, or too much")
            if isinstance(definition, _Class):
                classes[name] = definition
            else:
                functions[name] = definition
    printer = _Printer(classes, functions, constants)
    printed = {file.prefix: printer.file(file).encode("ascii") for file in files}
    _refuse_long_chains(printer.uses)
    return printed, {name: one.fields for name, one in classes.items()}


def _parse(prefix: str, source: bytes) -> _File:
    """The definitions of a file, classes taken apart."""
    try:
        # Warnings about escapes are no business of the user, and are errors where warnings are.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source.decode("ascii"))
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise Refusal(f"its code in {quoted(prefix)} cannot be read ({type(error).__name__})") from error
    file = _File(prefix)
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            file.definitions.append(_parse_class(node))
        elif isinstance(node, ast.FunctionDef):
            file.definitions.append(node)
        elif not isinstance(node, ast.Import | ast.ImportFrom) or not _is_harmless_import(node):
            raise Refusal(f"its code uses {type(node).__name__} outside of functions")
    return file


def _is_harmless_import(node: ast.Import | ast.ImportFrom) -> bool:
    """Whether it is one that older versions of PyTorch wrote; it is left out of what is printed."""
    return isinstance(node, ast.Import) and all(
        alias.name.startswith("__torch__") and alias.asname is None for alias in node.names
    )


def _parse_class(node: ast.ClassDef) -> _Class:
    base = [b.id if isinstance(b, ast.Name) else "?" for b in node.bases]
    if base != ["Module"] or node.keywords or node.decorator_list:
        raise Refusal(f"its class {quoted(node.name)} is no plain Module")
    found = _Class(_identifier(node.name))
    for one in node.body:
        if isinstance(one, ast.FunctionDef):
            if one.name.startswith("__") and one.name not in HARMLESS_DUNDERS:
                raise Refusal(f"its class {quoted(node.name)} defines {quoted(one.name)}")
            if one.name in found.methods:
                raise Refusal(f"its class {quoted(node.name)} defines {quoted(one.name)} twice")
            found.methods[_identifier(one.name)] = one
        elif isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
            _parse_field(found, one)
        elif isinstance(one, ast.Assign) and len(one.targets) == 1:
            _parse_assignment(found, one.targets[0], one.value)
        elif not isinstance(one, ast.Pass):
            raise Refusal(f"its class {quoted(node.name)} holds code ({type(one).__name__})")
    for names in found.lists.values():
        for name in names:
            kind = found.fields.get(name)
            if kind is None or str(kind) not in ("Tensor", "Optional[Tensor]", "NoneType"):
                raise Refusal(f"its class {quoted(node.name)} lists {quoted(name)}, which is no tensor of it")
    taken = [*found.fields, *found.constants, *found.methods]
    if len(taken) != len(set(taken)):
        raise Refusal(f"its class {quoted(node.name)} uses a name twice")
    return found


def _parse_field(found: _Class, node: ast.AnnAssign) -> None:
    """`name : Type`, or `name : Final[Type] = constant`."""
    assert isinstance(node.target, ast.Name)
    kind = parse_kind(node.annotation)
    _add_field(found, node.target.id, kind, node.value)


def _add_field(found: _Class, name: str, kind: Kind, value: ast.expr | None) -> None:
    if name in found.fields or name in found.constants or not name.isascii():
        raise Refusal(f"its class {quoted(found.name)} declares {quoted(name)} twice or oddly")
    if value is not None:
        if kind.name != "Final":
            raise Refusal(f"its class {quoted(found.name)} gives {quoted(name)} a value")
        found.constants[name] = (kind, value)
        return
    holds_class = any(inner.startswith("__torch__.") for inner in kind.names())
    if "Final" in kind.names() or (holds_class and not kind.is_class):
        raise Refusal(f"its class {quoted(found.name)} declares {quoted(name)} as {quoted(str(kind))}")
    found.fields[name] = kind


def _parse_assignment(found: _Class, target: ast.expr, value: ast.expr) -> None:
    """`__parameters__ = [...]`, `__buffers__ = [...]`, or `__annotations__["name"] = Type`."""
    if isinstance(target, ast.Name) and target.id in ("__parameters__", "__buffers__"):
        names = value.elts if isinstance(value, ast.List) else [value]
        texts = [n.value for n in names if isinstance(n, ast.Constant) and isinstance(n.value, str)]
        if len(texts) == len(names) and target.id not in found.lists:
            found.lists[target.id] = texts
            return
    if (
        isinstance(target, ast.Subscript)
        and isinstance(target.value, ast.Name)
        and target.value.id == "__annotations__"
        and isinstance(target.slice, ast.Constant)
        and isinstance(target.slice.value, str)
    ):
        _add_field(found, target.slice.value, parse_kind(value), None)
        return
    raise Refusal(f"its class {quoted(found.name)} assigns to {quoted(ast.unparse(target))}")


def _identifier(name: str) -> str:
    if not (name.isascii() and name.isidentifier()) or name in RESERVED:
        raise Refusal(f"its code uses the name {quoted(name)}")
    return name


def _literal(text: str) -> str:
    """A text in double quotes, anything unusual in octal, as TorchScript prints it."""
    if any(ord(c) > 255 for c in text):
        raise Refusal("its code holds a text that TorchScript does not write")
    plain = (c if " " <= c <= "~" and c not in '"\\' else f"\\{ord(c):03o}" for c in text)
    return f'"{"".join(plain)}"'


# --------------------------------------------------------------------------------------------------- printing


@dataclass(frozen=True)
class _Bound:
    """What a local name stands for: an object of a class, a function, or else a value."""

    class_name: str | None = None
    function: str | None = None


VALUE = _Bound()


class _Scope:
    """The local names of one function."""

    def __init__(self) -> None:
        self.names: dict[str, _Bound] = {}
        # What may be a list of sizes and nothing else; see LIST_ARGUMENT.
        self.not_lists: set[str] = set()
        self.lists: set[str] = set()

    def bind(self, name: str, bound: _Bound, *, is_list: bool) -> None:
        """Give a name its meaning, the same wherever it is assigned."""
        if self.names.setdefault(_identifier(name), bound) != bound:
            raise Refusal(f"its code gives {quoted(name)} two meanings")
        (self.lists if is_list else self.not_lists).add(name)

    def is_list(self, name: str) -> bool:
        return name in self.lists and name not in self.not_lists


class _Printer:
    """Prints what the grammar knows, and refuses the rest."""

    def __init__(
        self, classes: Mapping[str, _Class], functions: Mapping[str, ast.FunctionDef], constants: int
    ) -> None:
        self.classes = classes
        self.functions = functions
        self.constants = constants
        # Which definitions each definition names.
        self.uses: dict[str, set[str]] = {}
        self.current = ""

    # ------------------------------------------------------------------------------------------- definitions

    def file(self, file: _File) -> str:
        """All definitions of a file."""
        lines: list[str] = []
        for definition in file.definitions:
            self.current = f"{file.prefix}.{definition.name}"
            self.uses[self.current] = set()
            if isinstance(definition, _Class):
                lines += self.class_lines(definition)
            else:
                lines += self.function_lines(definition, None)
        return "\n".join(lines) + "\n"

    def class_lines(self, one: _Class) -> Iterator[str]:
        yield f"class {one.name}(Module):"
        for name in ("__parameters__", "__buffers__"):
            listed = "".join(f"{_literal(text)}, " for text in one.lists.get(name, []))
            yield f"{INDENT}{name} = [{listed}]"
        for name, kind in one.fields.items():
            if name.isidentifier() and not keyword.iskeyword(name) and name not in RESERVED:
                yield f"{INDENT}{name} : {self.kind(kind)}"
            else:
                yield f"{INDENT}__annotations__[{_literal(name)}] = {self.kind(kind)}"
        for name, (kind, value) in one.constants.items():
            yield f"{INDENT}{_identifier(name)} : {self.kind(kind)} = {self.expression(value, _Scope(), 0)}"
        for method in one.methods.values():
            yield from (INDENT + line for line in self.function_lines(method, self.current))

    def kind(self, kind: Kind) -> str:
        """A type, every class of which the archive defines."""
        for name in kind.names():
            if name.startswith("__torch__."):
                if name not in self.classes:
                    raise Refusal(f"its code uses the type {quoted(name)}, which it does not define")
                self.uses[self.current].add(name)
        return str(kind)

    def function_lines(self, node: ast.FunctionDef, owner: str | None) -> list[str]:
        """A function, or a method of a class."""
        arguments = node.args
        if (
            node.decorator_list
            or arguments.vararg
            or arguments.kwarg
            or arguments.kwonlyargs
            or arguments.posonlyargs
            or (owner is not None and not arguments.args)
        ):
            raise Refusal(f"its function {quoted(node.name)} is not of the form that TorchScript writes")
        scope = _Scope()
        written: list[str] = []
        first_default = len(arguments.args) - len(arguments.defaults)
        for number, argument in enumerate(arguments.args):
            if argument.annotation is None:
                raise Refusal(
                    f"its function {quoted(node.name)} does not say the type of {quoted(argument.arg)}"
                )
            kind = parse_kind(argument.annotation)
            if owner is not None and number == 0 and kind != Kind(owner):
                raise Refusal(f"its method {quoted(node.name)} is not of its own class")
            bound = _Bound(class_name=kind.name) if kind.is_class else VALUE
            scope.bind(argument.arg, bound, is_list=kind.name == "List")
            text = f"{argument.arg}: {self.kind(kind)}"
            if number >= first_default:
                text += f"={self.expression(arguments.defaults[number - first_default], _Scope(), 0)}"
            written.append(text)
        if node.returns is None:
            raise Refusal(f"its function {quoted(node.name)} does not say what it returns")
        returned = self.kind(parse_kind(node.returns))
        self.find_lists(node, scope)
        header = f"def {_identifier(node.name)}({', '.join(written)}) -> {returned}:"
        return [header, *self.block(node.body, scope, 1)]

    def find_lists(self, node: ast.FunctionDef, scope: _Scope) -> None:
        """Learn which names are assigned anything but lists, before it matters."""
        for one in ast.walk(node):
            targets: list[ast.expr] = []
            value: ast.expr | None = None
            if isinstance(one, ast.Assign):
                targets, value = one.targets, one.value
            elif isinstance(one, ast.AnnAssign | ast.For):
                targets = [one.target]
            for target in targets:
                pairs = [(target, value)]
                if isinstance(target, ast.Tuple):
                    values = value.elts if isinstance(value, ast.Tuple) else [None] * len(target.elts)
                    pairs = list(zip(target.elts, values, strict=False))
                for name, assigned in pairs:
                    if isinstance(name, ast.Name):
                        is_list = assigned is not None and self.surely_list(assigned)
                        (scope.lists if is_list else scope.not_lists).add(name.id)

    @staticmethod
    def surely_list(node: ast.expr) -> bool:
        """Whether an expression is a list by its form alone."""
        if isinstance(node, ast.List):
            return True
        if not isinstance(node, ast.Call):
            return False
        name = qualified_name(node.func)
        if name in ("annotate", "unchecked_cast") and len(node.args) == 2:
            return isinstance(node.args[0], ast.Subscript) and qualified_name(node.args[0].value) == "List"
        # torch.size(x) is a list, torch.size(x, 0) is a number.
        return name == "torch.list" or (name == "torch.size" and len(node.args) == 1)

    # -------------------------------------------------------------------------------------------- statements

    def block(self, body: list[ast.stmt], scope: _Scope, depth: int) -> Iterator[str]:
        """Statements, indented."""
        if depth > DEEPEST:
            raise Refusal("its code nests statements too deeply")
        for node in body:
            for line in self.statement(node, scope, depth):
                yield INDENT + line

    def statement(self, node: ast.stmt, scope: _Scope, depth: int) -> Iterator[str]:
        if isinstance(node, ast.Pass):
            yield "pass"
        elif isinstance(node, ast.Return):
            yield "return " + ("None" if node.value is None else self.expression(node.value, scope, 0))
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            yield self.expression(node.value, scope, 0)
        elif isinstance(node, ast.Assign) and len(node.targets) == 1:
            yield self.assignment(node.targets[0], node.value, scope)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            kind = parse_kind(node.annotation)
            if any(name.startswith("__torch__.") for name in kind.names()):
                raise Refusal("its code annotates a variable with a class")
            value = self.expression(node.value, scope, 0)
            scope.bind(node.target.id, VALUE, is_list=False)
            yield f"{node.target.id} : {self.kind(kind)} = {value}"
        elif isinstance(node, ast.If):
            yield f"if {self.expression(node.test, scope, 0)}:"
            yield from self.block(node.body, scope, depth + 1)
            if node.orelse:
                yield "else:"
                yield from self.block(node.orelse, scope, depth + 1)
        elif isinstance(node, ast.For) and isinstance(node.target, ast.Name) and not node.orelse:
            yield f"for {self.loop(node.target.id, node.iter, scope)}:"
            yield from self.block(node.body, scope, depth + 1)
        else:
            raise Refusal(f"its code uses {type(node).__name__}, which inference of a network does not need")

    def loop(self, name: str, counted: ast.expr, scope: _Scope) -> str:
        """`i in range(n)`."""
        if not (
            isinstance(counted, ast.Call)
            and qualified_name(counted.func) == "range"
            and len(counted.args) == 1
            and not counted.keywords
        ):
            raise Refusal("its code loops over something else than a range")
        scope.bind(name, VALUE, is_list=False)
        return f"{name} in range({self.expression(counted.args[0], scope, 0)})"

    def assignment(self, target: ast.expr, value: ast.expr, scope: _Scope) -> str:
        right = self.expression(value, scope, 0, reference=True)
        if isinstance(target, ast.Name):
            scope.bind(target.id, self.bound(value, scope), is_list=self.surely_list(value))
            return f"{target.id} = {right}"
        if isinstance(target, ast.Tuple) and target.elts:
            sources = value.elts if isinstance(value, ast.Tuple) else []
            if any(self.bound(source, scope) != VALUE for source in sources):
                raise Refusal("its code assigns several modules at once")
            names = []
            for one in target.elts:
                if not isinstance(one, ast.Name):
                    raise Refusal("its code assigns to something else than names")
                names.append(_identifier(one.id))
                scope.bind(one.id, VALUE, is_list=False)
            return f"{', '.join(names)}, = {right}" if len(names) == 1 else f"{', '.join(names)} = {right}"
        if isinstance(target, ast.Attribute):
            # Running averages of a network that is trained; PyTorch checks the type when it compiles this.
            owner = self.object_class(target.value, scope)
            kind = owner.fields.get(target.attr)
            if kind is None or kind.is_class:
                raise Refusal(
                    f"its code sets {quoted(target.attr)}, which is no value of {quoted(owner.name)}"
                )
            return f"{self.expression(target.value, scope, 0)}.{target.attr} = {right}"
        raise Refusal(f"its code assigns to a {type(target).__name__}")

    # ------------------------------------------------------------------------------------------- expressions

    def bound(self, node: ast.expr, scope: _Scope) -> _Bound:
        """What an expression would make a name stand for."""
        if isinstance(node, ast.Name):
            return scope.names.get(node.id, VALUE)
        name = qualified_name(node)
        if name is not None and name in self.functions:
            return _Bound(function=name)
        kind = self.field_kind(node, scope)
        return _Bound(class_name=kind.name) if kind is not None and kind.is_class else VALUE

    def field_kind(self, node: ast.expr, scope: _Scope) -> Kind | None:
        """Type of the field that is read, by `x.name` or `getattr(x, "name")`; None if it is neither."""
        if isinstance(node, ast.Attribute):
            if (qualified_name(node) or "").startswith(("CONSTANTS.", "__torch__.")):
                return None
            owner, name = self.object_class(node.value, scope), node.attr
        elif isinstance(node, ast.Call) and qualified_name(node.func) == "getattr":
            if len(node.args) != 2 or node.keywords:
                raise Refusal("its code calls getattr in an odd way")
            second = node.args[1]
            owner = self.object_class(node.args[0], scope)
            name = second.value if isinstance(second, ast.Constant) and isinstance(second.value, str) else ""
        else:
            return None
        kind = owner.fields.get(name) or (owner.constants[name][0].of[0] if name in owner.constants else None)
        if kind is None:
            raise Refusal(f"its code reads {quoted(name)}, which {quoted(owner.name)} does not declare")
        return kind

    def object_class(self, node: ast.expr, scope: _Scope) -> _Class:
        """The class of the object that an expression is; attributes of anything else are refused."""
        class_name: str | None = None
        if isinstance(node, ast.Name):
            class_name = scope.names.get(node.id, VALUE).class_name
        elif isinstance(node, ast.Attribute | ast.Call):
            kind = self.field_kind(node, scope)
            class_name = kind.name if kind is not None and kind.is_class else None
        if class_name is None or class_name not in self.classes:
            raise Refusal("its code uses an attribute or a method of what is no module")
        self.uses[self.current].add(class_name)
        return self.classes[class_name]

    def expression(self, node: ast.expr, scope: _Scope, depth: int, *, reference: bool = False) -> str:
        """An expression; `reference` allows it to be a function of the archive, to be called later."""
        if depth > DEEPEST:
            raise Refusal("its code nests expressions too deeply")
        inner = depth + 1
        if isinstance(node, ast.Constant):
            return self.constant(node.value)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            operand = node.operand
            number = isinstance(operand, ast.Constant) and type(operand.value) in (int, float)
            if number or (isinstance(operand, ast.Name) and operand.id == "inf"):
                return f"-{self.expression(operand, scope, inner)}"
        if isinstance(node, ast.Name):
            if node.id in ("inf", "nan"):
                return node.id
            if node.id in scope.names:
                if scope.names[node.id].function is not None:
                    raise Refusal("its code passes a function around")
                return node.id
            raise Refusal(f"its code uses {quoted(node.id)}, which it does not define")
        if isinstance(node, ast.List):
            return f"[{', '.join(self.expression(one, scope, inner) for one in node.elts)}]"
        if isinstance(node, ast.Tuple):
            written = "".join(self.expression(one, scope, inner) + ", " for one in node.elts)
            return f"({written})" if len(node.elts) < 2 else f"({written[:-2]})"
        if isinstance(node, ast.Subscript):
            return (
                f"({self.expression(node.value, scope, inner)})[{self.expression(node.slice, scope, inner)}]"
            )
        if isinstance(node, ast.Attribute):
            return self.attribute(node, scope, inner, reference)
        if isinstance(node, ast.Call):
            return self.call(node, scope, inner)
        raise Refusal(f"its code uses {type(node).__name__}, which inference of a network does not need")

    def constant(self, value: object) -> str:
        if value is None or isinstance(value, bool):
            return str(value)
        if isinstance(value, str):
            return _literal(value)
        if isinstance(value, int) and value < 2**63:
            return str(value)
        if isinstance(value, float) and math.isfinite(value):
            return repr(value)
        raise Refusal(f"its code holds the constant {quoted(value)}")

    def attribute(self, node: ast.Attribute, scope: _Scope, depth: int, reference: bool) -> str:
        name = qualified_name(node) or ""
        if name.startswith("CONSTANTS."):
            number = name.removeprefix("CONSTANTS.c")
            if not number.isdecimal() or int(number) >= self.constants or str(int(number)) != number:
                raise Refusal(f"its code uses {quoted(name)}, and it has {self.constants} constants")
            return name
        if name.startswith("__torch__."):
            if not reference or name not in self.functions:
                raise Refusal(f"its code uses {quoted(name)}, which is no function of it")
            self.uses[self.current].add(name)
            return name
        self.field_kind(node, scope)
        return f"{self.expression(node.value, scope, depth)}.{node.attr}"

    def call(self, node: ast.Call, scope: _Scope, depth: int) -> str:
        """A call of an operator, a function or a method, or one of the few words of the language."""
        name = qualified_name(node.func)
        head = name.split(".")[0] if name is not None else ""
        if name is not None and head == "torch":
            if name.removeprefix("torch.") not in TORCH:
                raise Refusal(f"its code calls {quoted(name)}, which is no operator for inference")
            self.check_operator(name.removeprefix("torch."), node, scope)
            return f"{name}({self.arguments(node, scope, depth)})"
        if name is not None and head == "ops":
            if not name.startswith("ops.prim.") or name.removeprefix("ops.prim.") not in PRIM:
                raise Refusal(f"its code calls {quoted(name)}, which is no operator for inference")
            return f"{name}({self.arguments(node, scope, depth)})"
        if name is not None and head == "__torch__":
            if name not in self.functions:
                raise Refusal(f"its code calls {quoted(name)}, which is no function of it")
            self.uses[self.current].add(name)
            return f"{name}({self.arguments(node, scope, depth)})"
        if isinstance(node.func, ast.Name):
            return self.call_by_name(node.func.id, node, scope, depth)
        if isinstance(node.func, ast.Attribute):
            owner = self.object_class(node.func.value, scope)
            if node.func.attr not in owner.methods:
                raise Refusal(
                    f"its code calls {quoted(node.func.attr)}, which {quoted(owner.name)} does not define"
                )
            return (
                f"({self.expression(node.func.value, scope, depth)}).{node.func.attr}"
                f"({self.arguments(node, scope, depth)})"
            )
        raise Refusal("its code calls something without a name")

    def call_by_name(self, name: str, node: ast.Call, scope: _Scope, depth: int) -> str:
        if name in ("annotate", "unchecked_cast", "uninitialized"):
            wanted = 1 if name == "uninitialized" else 2
            if len(node.args) != wanted or node.keywords:
                raise Refusal(f"its code calls {name} in an odd way")
            kind = parse_kind(node.args[0])
            if name == "unchecked_cast" and not kind.names() <= CHECKED_ON_USE:
                raise Refusal(f"its code takes a value for a {quoted(str(kind))} without a check")
            if any(one.startswith("__torch__.") for one in kind.names()):
                raise Refusal(f"its code takes a value for a {quoted(str(kind))}")
            rest = "".join(f", {self.expression(one, scope, depth)}" for one in node.args[1:])
            return f"{name}({self.kind(kind)}{rest})"
        if name == "getattr":
            self.field_kind(node, scope)
            return f"getattr({self.arguments(node, scope, depth)})"
        if name in CONVERSIONS and len(node.args) == 1 and not node.keywords:
            return f"{name}({self.arguments(node, scope, depth)})"
        if scope.names.get(name, VALUE).function is not None:
            return f"{name}({self.arguments(node, scope, depth)})"
        raise Refusal(f"its code calls {quoted(name)}, which is no function of it")

    def arguments(self, node: ast.Call, scope: _Scope, depth: int) -> str:
        written = [self.expression(one, scope, depth) for one in node.args]
        for named in node.keywords:
            if named.arg is None or not named.arg.isascii() or named.arg == "out":
                raise Refusal(f"its code passes the argument {quoted(named.arg)}")
            written.append(f"{named.arg}={self.expression(named.value, scope, depth)}")
        return ", ".join(written)

    def check_operator(self, name: str, node: ast.Call, scope: _Scope) -> None:
        """What some operators may be given."""
        if name in LIST_ARGUMENT:
            sizes = node.args[1] if len(node.args) == 2 and not node.keywords else None
            known = isinstance(sizes, ast.Name) and scope.is_list(sizes.id)
            if sizes is None or not (known or self.surely_list(sizes)):
                raise Refusal(f"its code calls torch.{name} with something else than a list of sizes")
        if name in POSITIVE_DIVISOR:
            divisor = node.args[1] if len(node.args) == 2 else None
            value = divisor.value if isinstance(divisor, ast.Constant) else None
            if not isinstance(value, int | float) or value <= 0:
                raise Refusal(f"its code calls torch.{name} with a divisor that is no number above 0")


def _refuse_long_chains(uses: Mapping[str, set[str]]) -> None:
    """Refuse definitions that need each other in a circle, or in a longer chain than PyTorch may follow."""
    length: dict[str, int] = {}
    for start in uses:
        path: list[tuple[str, Iterator[str]]] = [(start, iter(sorted(uses[start])))]
        entered = {start}
        while path:
            name, rest = path[-1]
            following = next((n for n in rest if n not in length and n != name), None)
            if following is None:
                own = uses[name] - {name}
                length[name] = 1 + max((length.get(n, 0) for n in own), default=0)
                path.pop()
                entered.discard(name)
            elif following in entered:
                raise Refusal(f"its definition of {quoted(following)} needs itself")
            else:
                entered.add(following)
                path.append((following, iter(sorted(uses[following]))))
            if len(path) > LONGEST_CHAIN:
                raise Refusal("its definitions need each other in too long a chain")
    if any(n > LONGEST_CHAIN for n in length.values()):
        raise Refusal("its definitions need each other in too long a chain")
