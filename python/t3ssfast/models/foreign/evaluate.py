"""Evaluation of a model's code for one input shape, which gives a graph of tensor operators.

All numbers, lists and sizes are known for a given input shape, so that branches and loops over them are
followed here, statement by statement and within a budget. What is left is a straight list of operators on
tensors, each checked by its rule in `operators`. Nothing that the file says about types is believed.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from t3ssfast.models.foreign.code import Code, qualified_name
from t3ssfast.models.foreign.graph import GraphBuilder, WritesInput, number_call
from t3ssfast.models.foreign.host import (
    ARITHMETIC,
    MAX_LENGTH,
    STRUCTURE,
    TENSOR_ARITHMETIC,
    call_host,
    steps_of,
)
from t3ssfast.models.foreign.pickles import Instance, TensorRecord
from t3ssfast.models.foreign.refusal import Refusal, quoted
from t3ssfast.models.foreign.values import ShapeError, TensorValue, known

__all__ = ["Program", "build_graph"]

# A scripted ResNet-18 with interpolation takes some thousand steps and about 100 operators.
MAX_STEPS = 200_000
# Nested calls, blocks and expressions; each takes one or two of Python's 1,000 frames.
MAX_DEPTH = 250
# Names that mean functions of lists where the first argument is one.
LIST_FUNCTIONS = {"add": "add", "add_": "extend", "mul": "mul", "slice": "slice"}


@dataclass(frozen=True)
class Program:
    """A model as it was read: code, root module and table of constants."""

    code: Code
    root: Instance
    constants: tuple[Any, ...]

    def __deepcopy__(self, memo: dict[int, Any]) -> Program:
        return self


@dataclass(frozen=True)
class _Function:
    node: ast.FunctionDef


def build_graph(
    program: Program, tensors: Mapping[tuple[str, TensorRecord], torch.Tensor], shape: tuple[int, ...]
) -> fx.GraphModule:
    """Build the graph of a model for one input shape, from its program and its tensors by (folder, record).

    Raises
    ------
    Refusal
        The model uses something that cannot be translated.
    ShapeError
        The model does not take an input of this shape.
    """
    try:
        try:
            return _Evaluator(program, tensors, shape, copy_input=False).run()
        except WritesInput:
            return _Evaluator(program, tensors, shape, copy_input=True).run()
    except RecursionError as error:
        raise Refusal("its code is nested too deeply") from error


class _Evaluator(GraphBuilder):
    def __init__(
        self,
        program: Program,
        tensors: Mapping[tuple[str, TensorRecord], torch.Tensor],
        shape: tuple[int, ...],
        *,
        copy_input: bool,
    ) -> None:
        super().__init__(tensors, shape)
        self.program, self.copy_input = program, copy_input
        self.steps = self.depth = 0
        # Lists and tuples of the pickles by their identity, as they are given to the code, and as they were.
        self.held: dict[int, tuple[Any, list[Any]]] = {}

    def run(self) -> fx.GraphModule:
        image = self.input
        if self.copy_input:
            image = self.tensor_call("clone", [image], {})
        answer = self.call_method(self.program.root, "forward", [image], {})
        if any(
            len(now) != len(was) or any(map(operator.is_not, now, was)) for now, was in self.held.values()
        ):
            raise Refusal("its code changes a list that the model holds")
        nodes = [self.node_of(v) for v in (answer if isinstance(answer, tuple | list) else [answer])]
        self.graph.output(tuple(nodes) if isinstance(answer, tuple | list) else nodes[0])
        return fx.GraphModule(self.attributes, self.graph)

    # ------------------------------------------------------------------------------------------- statements

    def call_method(self, owner: Any, name: str, args: list[Any], keywords: dict[str, Any]) -> Any:
        if not isinstance(owner, Instance):
            raise Refusal(f"its code calls {quoted(name)} of something that is not a module")
        definition = self.program.code.classes.get(owner.class_name)
        if definition is None or name not in definition.methods:
            raise Refusal(f"its code calls {quoted(name)}, which {quoted(owner.class_name)} does not define")
        return self.call(definition.methods[name], [owner, *args], keywords)

    def call(self, node: ast.FunctionDef, args: list[Any], keywords: dict[str, Any]) -> Any:
        signature = node.args
        names = [argument.arg for argument in signature.args]
        odd = signature.vararg or signature.kwarg or signature.kwonlyargs or signature.posonlyargs
        if odd or node.decorator_list or len(args) > len(names):
            raise Refusal(
                f"its function {quoted(node.name)} or a call of it has another form than TorchScript"
            )
        scope: dict[str, Any] = dict(zip(names, args, strict=False))
        if keywords.keys() & scope.keys() or keywords.keys() - set(names):
            raise Refusal(f"its code calls {quoted(node.name)} with arguments that it does not have")
        scope |= keywords
        defaults = dict(zip(names[len(names) - len(signature.defaults) :], signature.defaults, strict=True))
        for name in names:
            if name not in scope:
                if name not in defaults:
                    raise Refusal(f"its code calls {quoted(node.name)} without {quoted(name)}")
                scope[name] = self.expression(defaults[name], {})
        _, value = self.block(node.body, scope)
        return value

    def block(self, body: list[ast.stmt], scope: dict[str, Any]) -> tuple[bool, Any]:
        """Follow statements; return whether one returned, and its value."""
        self.enter()
        outcome: tuple[bool, Any] = False, None
        for statement in body:
            self.step()
            outcome = self.statement(statement, scope)
            if outcome[0]:
                break
        self.depth -= 1
        return outcome

    def statement(self, statement: ast.stmt, scope: dict[str, Any]) -> tuple[bool, Any]:
        match statement:
            case ast.Assign(targets=[target], value=value):
                self.assign(target, self.expression(value, scope), scope)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                scope[name] = self.expression(value, scope)
            case ast.Expr(value=ast.Call() as value):
                self.expression(value, scope)
            case ast.If(test=test, body=then, orelse=otherwise):
                return self.block(then if self.truth(test, scope) else otherwise, scope)
            case ast.For(target=ast.Name(id=name), iter=count, body=inner, orelse=[]):
                for index in self.range(count, scope):
                    scope[name] = index
                    outcome = self.block(inner, scope)
                    if outcome[0]:
                        return outcome
            case ast.Return(value=result):
                return True, None if result is None else self.expression(result, scope)
            case ast.Pass():
                pass
            case _:
                raise Refusal(f"its code uses the statement {type(statement).__name__}")
        return False, None

    def enter(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Refusal("its code is nested too deeply")

    def step(self, count: int = 1) -> None:
        self.steps += count
        if self.steps > MAX_STEPS:
            raise Refusal(f"its code takes over {MAX_STEPS} steps for one input")

    def assign(self, target: ast.expr, value: Any, scope: dict[str, Any]) -> None:
        if isinstance(target, ast.Name):
            scope[target.id] = value
            return
        if not isinstance(target, ast.Tuple | ast.List) or not isinstance(value, tuple | list):
            raise Refusal("its code assigns to something that is not a local name")
        if len(target.elts) != len(value):
            raise ShapeError(f"{len(value)} values are unpacked into {len(target.elts)} names")
        for element, item in zip(target.elts, value, strict=True):
            if not isinstance(element, ast.Name):
                raise Refusal("its code assigns to something that is not a local name")
            scope[element.id] = item

    def truth(self, test: ast.expr, scope: dict[str, Any]) -> bool:
        value = known(self.expression(test, scope))
        if type(value) is not bool:
            raise Refusal("its code branches on the values of a tensor")
        return value

    def range(self, node: ast.expr, scope: dict[str, Any]) -> range:
        match node:
            case ast.Call(func=ast.Name(id="range"), args=[count], keywords=[]):
                limit = known(self.expression(count, scope))
                if type(limit) is int and limit <= MAX_LENGTH:
                    return range(limit)
        raise Refusal("its code has a loop that is not over a known number of steps")

    # ------------------------------------------------------------------------------------------ expressions

    def expression(self, node: ast.expr, scope: dict[str, Any]) -> Any:
        self.step()
        self.enter()
        value = self.evaluate(node, scope)
        self.depth -= 1
        return value

    def evaluate(self, node: ast.expr, scope: dict[str, Any]) -> Any:
        match node:
            case ast.Constant(value=value) if type(value) in (int, float, bool, str, type(None)):
                if type(value) is int and not -(2**63) <= value < 2**63:
                    raise Refusal("its code holds an integer of more than 64 bits")
                return value
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self.host("neg", [known(self.expression(operand, scope))], {})
            case ast.List(elts=elements):
                return [self.expression(element, scope) for element in elements]
            case ast.Tuple(elts=elements):
                return tuple(self.expression(element, scope) for element in elements)
            case ast.Subscript(value=sequence, slice=index):
                values = [self.expression(sequence, scope), known(self.expression(index, scope))]
                return self.host("__getitem__", values, {})
            case ast.Call():
                return self.call_expression(node, scope)
            case ast.Name(id=name) if name in scope:
                return scope[name]
            case ast.Name(id="inf" | "nan" as name):
                return float(name)
            case ast.Attribute(value=owner, attr=attribute):
                return self.attribute(node, owner, attribute, scope)
        raise Refusal(f"its code uses the expression {_shown(node)}")

    def attribute(self, node: ast.expr, owner: ast.expr, attribute: str, scope: dict[str, Any]) -> Any:
        name = qualified_name(node) or ""
        if name in self.program.code.functions:
            return _Function(self.program.code.functions[name])
        if name.startswith("CONSTANTS.c") and "CONSTANTS" not in scope:
            index = name.removeprefix("CONSTANTS.c")
            if not (index.isdecimal() and len(index) < 6 and int(index) < len(self.program.constants)):
                raise Refusal(f"its code refers to {quoted(name)}, which is not in its table of constants")
            return self.stored(self.program.constants[int(index)], "constants")
        return self.field(self.expression(owner, scope), attribute)

    def field(self, owner: Any, name: str) -> Any:
        if isinstance(owner, Instance):
            state = owner.state or {}
            if name == "training":  # as after eval()
                return False
            if name in state:
                return self.stored(state[name], "data")
            definition = self.program.code.classes.get(owner.class_name)
            if definition is not None and name in definition.constants:
                return self.expression(definition.constants[name], {})
        raise Refusal(f"its code reads {quoted(name)}, which is not a field of one of its modules")

    def stored(self, value: Any, folder: str) -> Any:
        """Return a value of a pickle, with tensors as constants; the same one each time, as in PyTorch."""
        if isinstance(value, TensorRecord):
            return self.constant(folder, value)
        if type(value) not in (list, tuple):
            return value
        if id(value) not in self.held:
            self.step(len(value))
            self.enter()
            items = [self.stored(item, folder) for item in value]
            self.depth -= 1
            self.held[id(value)] = (items if type(value) is list else tuple(items)), list(items)
        return self.held[id(value)][0]

    # ------------------------------------------------------------------------------------------------- calls

    def call_expression(self, node: ast.Call, scope: dict[str, Any]) -> Any:
        name = qualified_name(node.func) or ""
        root = name.partition(".")[0]
        if root in scope:
            name = ""
        if name in ("annotate", "unchecked_cast") and len(node.args) == 2:
            # The type is not believed: every use looks at the value.
            return self.expression(node.args[1], scope)
        if name == "uninitialized":
            return None
        if any(isinstance(arg, ast.Starred) for arg in node.args) or len(node.args) > MAX_LENGTH:
            raise Refusal("its code unpacks arguments")
        args = [self.expression(arg, scope) for arg in node.args]
        keywords: dict[str, Any] = {}
        for keyword in node.keywords:
            if keyword.arg is None or keyword.arg in keywords:
                raise Refusal("its code unpacks or repeats arguments")
            keywords[keyword.arg] = self.expression(keyword.value, scope)
        if name.startswith("torch."):
            return self.torch_call(name.removeprefix("torch."), args, keywords)
        if name.startswith("ops.prim."):
            return self.torch_call(name.removeprefix("ops."), args, keywords)
        if name in ("int", "float", "bool") and len(args) == 1 and not keywords:
            return self.host(name.capitalize(), [known(args[0])], {})
        if name == "getattr" and len(args) == 2 and type(args[1]) is str:
            return self.field(args[0], args[1])
        if name in self.program.code.functions:
            return self.call(self.program.code.functions[name], args, keywords)
        if isinstance(node.func, ast.Name) and isinstance(function := scope.get(node.func.id), _Function):
            return self.call(function.node, args, keywords)
        if isinstance(node.func, ast.Attribute) and (not name or root in scope):
            return self.call_method(self.expression(node.func.value, scope), node.func.attr, args, keywords)
        raise Refusal(f"its code calls {_shown(node.func)}, which is not an operator of networks")

    def host(self, name: str, args: list[Any], keywords: dict[str, Any]) -> Any:
        result = call_host(name, args, keywords)
        self.step(steps_of(name, [*args, *keywords.values()], result))
        return result

    def torch_call(self, name: str, args: list[Any], keywords: dict[str, Any]) -> Any:
        if name in STRUCTURE:
            return self.host(name, args, keywords)
        if name in LIST_FUNCTIONS and args and type(args[0]) is list:
            return self.host(LIST_FUNCTIONS[name], args, keywords)
        self.step(steps_of(name, [*args, *keywords.values()], None))
        values = [known(v) for v in args]
        named = {key: known(v) for key, v in keywords.items()}
        if _holds_tensor(values) or _holds_tensor(list(named.values())):
            return self.tensor_call(name, args, keywords)
        in_place = name.endswith("_") and name not in ARITHMETIC
        base = name[:-1] if in_place else name
        if base not in ARITHMETIC:
            return self.tensor_call(name, args, keywords)
        if base not in TENSOR_ARITHMETIC or not any(isinstance(v, TensorValue) for v in args):
            if in_place:
                raise Refusal(f"its code calls torch.{name} of a number")
            return self.host(base, values, named)
        result = number_call(base, args, keywords)
        if not in_place:
            return result
        first = args[0]
        if not isinstance(first, TensorValue) or not first.is_number or first.dtype != result.dtype:
            raise Refusal(f"its operator torch.{name} changes a constant")
        first.constant, first.node = result.constant, None
        return first


def _shown(node: ast.expr) -> str:
    try:
        return quoted(ast.unparse(node)[:200])
    except ValueError:  # an integer of thousands of digits
        return type(node).__name__


def _holds_tensor(values: list[Any]) -> bool:
    return any(
        isinstance(v, TensorValue) or (isinstance(v, list) and any(isinstance(i, TensorValue) for i in v))
        for v in values
    )
