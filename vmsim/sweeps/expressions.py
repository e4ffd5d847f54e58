"""Filters and derived parameters: arithmetic and comparisons over the names of axes, and nothing else.

An expression is parsed by Python's own parser and walked node by node. What is not listed here is refused when the
sweep is read: there is no call, no attribute, no subscript, and no name but those of axes. A dotted key such as
``vm.0.mode`` is one name: it is put in place of a plain one before the text is parsed.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from vmsim.base.errors import InputError, nearest
from vmsim.base.units import parse_size

__all__ = ["Expression", "Value", "plain"]

Value = bool | int | float | str

_LONGEST: Final = 1000
_DEEPEST: Final = 50
_MOST_BITS: Final = 128
# Strings, in which nothing is a key, and dotted keys; no part of one begins with an underscore.
_TOKENS: Final = re.compile(
    r"""'(?:[^'\\]|\\.)*+'|"(?:[^"\\]|\\.)*+"|(?P<key>(?<![\w.])[A-Za-z]\w*(?:\.[A-Za-z0-9]\w*)+)""",
    re.ASCII | re.DOTALL,
)
_OPERATORS: Final[dict[type[ast.AST], Callable[..., Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda value, choices: value in choices,
    ast.NotIn: lambda value, choices: value not in choices,
}
_NODES: Final = (
    ast.Expression,
    ast.BoolOp,
    ast.BinOp,
    ast.UnaryOp,
    ast.Compare,
    ast.IfExp,
    ast.Constant,
    ast.Name,
    ast.Tuple,
    ast.List,
    ast.Load,
    ast.And,
    ast.Or,
    *_OPERATORS,
)
_WHAT: Final = (
    "an expression has numbers, texts, names and keys of axes, + - * / // % **, comparisons, in, and, or, not, if"
)


def plain(value: Any) -> Any:
    """Return a size such as ``"64MiB"`` as its bytes, and anything else as it is."""
    if isinstance(value, str):
        try:
            return parse_size(value)
        except InputError:
            return value
    return value


class Expression:
    """One expression, checked.

    Parameters
    ----------
    text : str
        For example ``pool_min <= pool_max`` or ``4 * pool_min``.

    Attributes
    ----------
    names : tuple of str
        The names in it, in order of appearance.

    Raises
    ------
    InputError
        It is no expression, or has something in it that is not allowed.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        if len(text) > _LONGEST:
            raise InputError(f"an expression of {len(text)} characters, expected at most {_LONGEST}")
        self._keys: dict[str, str] = {}
        try:
            self._tree = ast.parse(self._without_dots(text.strip()), mode="eval")
        except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
            reason = getattr(error, "msg", None) or "too deeply nested"
            raise InputError(f"{text!r} is not an expression: {reason}; {_WHAT}") from None
        self._check(self._tree, 0)
        if isinstance(self._tree.body, ast.Tuple | ast.List):
            raise InputError(f"{text!r} is several values, expected one")
        found = (node.id for node in ast.walk(self._tree) if isinstance(node, ast.Name))
        self.names = tuple(dict.fromkeys(self._keys.get(name, name) for name in found))

    def _without_dots(self, text: str) -> str:
        """Return the text with plain names in the place of dotted keys; note which is which."""
        unused = "key_"
        while unused in text:
            unused += "_"

        def plain_name(match: re.Match[str]) -> str:
            if not match["key"]:
                return match[0]
            name = f"{unused}{len(self._keys)}"
            self._keys[name] = match["key"]
            return name

        return _TOKENS.sub(plain_name, text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expression) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def check_names(self, known: Collection[str]) -> None:
        """Refuse names that are none of `known`.

        Raises
        ------
        InputError
            With the nearest one that is known.
        """
        for name in self.names:
            if name not in known:
                usable = [each for each in known if all(part.replace("_", "a").isalnum() for part in each.split("."))]
                hint = nearest(name, usable) if usable else "No axis has a name of letters, digits and _."
                raise InputError(f"{self.text!r}: {name!r} is neither the name nor the key of an axis. {hint}")

    def __call__(self, values: Mapping[str, Any]) -> Any:
        """Return what it comes to; sizes in texts (``"64MiB"``) are numbers of bytes.

        Raises
        ------
        InputError
            Division by zero, a number that is too large, or an operation between texts and numbers.
        """
        try:
            return self._value(self._tree.body, values)
        except (ArithmeticError, TypeError, ValueError) as error:
            given = ", ".join(f"{name} = {values[name]!r}" for name in self.names)
            raise InputError(f"{self.text!r} cannot be computed{f' with {given}' if given else ''}: {error}") from None

    def _check(self, node: ast.AST, depth: int) -> None:
        if depth > _DEEPEST:
            raise InputError(f"{self.text!r}: too deeply nested")
        if not isinstance(node, _NODES):
            raise InputError(f"{self.text!r}: {_named(node)} is not allowed; {_WHAT}")
        if isinstance(node, ast.Constant) and (
            type(node.value) not in (bool, int, float, str)
            or (type(node.value) is int and node.value.bit_length() > _MOST_BITS)
        ):
            raise InputError(f"{self.text!r}: found a constant that is neither a usable number nor a text")
        for child in ast.iter_child_nodes(node):
            self._check(child, depth + 1)

    def _value(self, node: ast.expr, values: Mapping[str, Any]) -> Any:
        match node:
            case ast.Constant(value=value):
                return plain(value)
            case ast.Name(id=name):
                return plain(values[self._keys.get(name, name)])
            case ast.Tuple(elts=parts) | ast.List(elts=parts):
                return tuple(self._value(part, values) for part in parts)
            case ast.UnaryOp(op=how, operand=inner):
                return _OPERATORS[type(how)](self._value(inner, values))
            case ast.BinOp(left=left, op=how, right=right):
                return _computed(how, self._value(left, values), self._value(right, values))
            case ast.BoolOp(op=how, values=parts):
                stop = isinstance(how, ast.Or)
                return next((True for part in parts if bool(self._value(part, values)) is stop), False) is stop
            case ast.IfExp(test=test, body=body, orelse=otherwise):
                return self._value(body if self._value(test, values) else otherwise, values)
            case ast.Compare(left=left, ops=hows, comparators=rest):
                before = self._value(left, values)
                for compared, part in zip(hows, rest, strict=True):
                    after = self._value(part, values)
                    if not _OPERATORS[type(compared)](before, after):
                        return False
                    before = after
                return True
        raise TypeError(f"{_named(node)} has no value")


def _computed(how: ast.operator, left: Any, right: Any) -> Any:
    for operand in (left, right):
        if not isinstance(operand, int | float):
            raise TypeError(f"{operand!r} is not a number")
    if isinstance(how, ast.Pow):
        bits = max(left.bit_length(), 1) if isinstance(left, int) else 1
        if abs(right) > _MOST_BITS or bits * abs(right) > _MOST_BITS:
            raise OverflowError("the power is too large")
    made = _OPERATORS[type(how)](left, right)
    if isinstance(made, complex):
        raise TypeError("the power is not a real number")
    if isinstance(made, int) and made.bit_length() > _MOST_BITS:
        raise OverflowError("the number is too large")
    return made


def _named(node: ast.AST) -> str:
    names = {ast.Call: "a call", ast.Attribute: "a dot", ast.Subscript: "[…]", ast.Lambda: "lambda"}
    return names.get(type(node), type(node).__name__)
