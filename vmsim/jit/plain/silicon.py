"""A core and an LLC as kernels see them: their geometry is read from the core's header, and from the LLC's shape."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Final

import vmsim.jit.clean_numba  # noqa: F401  (before numba)

# isort: split

import numpy as np
from llvmlite import ir
from numba import from_dtype, types
from numba.core import cgutils
from numba.extending import (
    intrinsic,
    lower_builtin,
    models,
    overload_attribute,
    register_jitable,
    register_model,
    type_callable,
)

from vmsim.jit.prefetch import ask
from vmsim.jit.silicon import Silicon

__all__ = ["silicon"]

_WORD: Final = ir.IntType(64)
_INLINE: Final = {"forceinline": True, "error_model": "numpy", "_nrt": False}
Generate = Callable[..., Any]


class _Core(types.Type):
    """A pointer to the words of a core."""

    def __init__(self) -> None:
        super().__init__("core")


class _Unit(types.Type):
    """The sets of a unit whose ways keep a tag and, if keyed, a value; an age, if it has a policy; words besides."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        super().__init__(f"unit of {columns} columns")


class _Set(types.Type):
    """One of them."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        super().__init__(f"set of {columns} columns")


class _Words(types.Type):
    """So many words in a row."""


_CORE, _WORDS = _Core(), _Words("words")
_POINTER = types.CPointer(types.int64)


def _struct(kind: type, *members: tuple[str, types.Type]) -> None:
    class Model(models.StructModel):
        def __init__(self, manager: Any, kind: types.Type) -> None:
            super().__init__(manager, kind, [*members])

    register_model(kind)(Model)


_struct(_Core, ("first", _POINTER))
_WAYS: Final = ("first", _POINTER), ("ways", types.int64), ("policy", types.int64), ("notes", types.int64)
_struct(_Unit, *_WAYS, ("sets", types.int64))
_struct(_Set, *_WAYS)
_struct(_Words, ("first", _POINTER), ("count", types.int64))


def _read(context: Any, builder: Any, kind: types.Type, value: Any) -> Any:
    return cgutils.create_struct_proxy(kind)(context, builder, value=value)


def _made(context: Any, builder: Any, kind: types.Type, **fields: Any) -> Any:
    struct = cgutils.create_struct_proxy(kind)(context, builder)
    for name, value in fields.items():
        setattr(struct, name, value)
    return struct._getvalue()


def _at(builder: Any, first: Any, index: Any) -> Any:
    """Return a pointer to the word `index`, a number or a value, after `first`."""
    return builder.gep(first, [_WORD(index) if isinstance(index, int) else index], inbounds=True)


def _attribute(owner: type, name: str, kind: types.Type, generate: Generate) -> None:
    """Give a type an attribute: `generate(context, builder, its type, what it is of)` emits what it is."""

    def emit(_: Any, of: Any) -> Any:
        return kind(of), lambda context, builder, sig, values: generate(
            context, builder, sig.args[0], _read(context, builder, sig.args[0], values[0])
        )

    get: Any = intrinsic(emit)

    @overload_attribute(owner, name, jit_options=_INLINE, strict=False)  # type: ignore[call-arg]
    def resolve(of: Any) -> Any:
        return lambda of: get(of)


def _column(column: Callable[[_Set], int]) -> Generate:
    """Return what emits a column of a set."""

    def generate(context: Any, builder: Any, of: _Set, kept: Any) -> Any:
        first = _at(builder, kept.first, builder.mul(kept.ways, _WORD(column(of))))
        return _made(context, builder, _WORDS, first=first, count=kept.ways)

    return generate


def _columns(builder: Any, kind: _Unit | _Set, of: Any) -> Any:
    """Return how many words a way has: of its tag, its value, its age."""
    ages = builder.zext(builder.icmp_signed("!=", of.policy, _WORD(0)), _WORD)
    return builder.add(ages, _WORD(kind.columns))


def _notes(context: Any, builder: Any, kind: _Set, kept: Any) -> Any:
    first = _at(builder, kept.first, builder.mul(kept.ways, _columns(builder, kind, kept)))
    return _made(context, builder, _WORDS, first=first, count=kept.notes)


_attribute(_Set, "tag", _WORDS, _column(lambda of: 0))
_attribute(_Set, "value", _WORDS, _column(lambda of: 1))
_attribute(_Set, "age", _WORDS, _column(lambda of: of.columns))
_attribute(_Set, "notes", _WORDS, _notes)
_attribute(  # a number, as the length of nothing
    _Set, "policy", _WORDS, lambda c, b, of, kept: _made(c, b, _WORDS, first=kept.first, count=kept.policy)
)


def _typed(function: Any, answer: Callable[..., Any]) -> None:
    """Have a function of these types typed."""

    @type_callable(function)
    def type_it(context: Any) -> Any:
        return answer


def _type_item(of: Any, index: Any) -> Any:
    if isinstance(of, _Unit):
        return _Set(of.columns)(of, types.int64)
    return types.int64(of, types.int64) if isinstance(of, _Words) else None


def _type_store(of: Any, index: Any, value: Any) -> Any:
    return types.none(of, types.int64, types.int64) if isinstance(of, _Words) else None


_typed(len, lambda of: types.int64 if isinstance(of, _Unit | _Words) else None)
_typed(operator.getitem, _type_item)
_typed(operator.setitem, _type_store)


@lower_builtin(len, _Unit)
def _sets(context: Any, builder: Any, sig: Any, values: Any) -> Any:
    return _read(context, builder, sig.args[0], values[0]).sets


@lower_builtin(len, _Words)
def _count(context: Any, builder: Any, sig: Any, values: Any) -> Any:
    return _read(context, builder, sig.args[0], values[0]).count


@lower_builtin(operator.getitem, _Unit, types.int64)
def _get_set(context: Any, builder: Any, sig: Any, values: Any) -> Any:
    unit = _read(context, builder, sig.args[0], values[0])
    words = builder.add(builder.mul(unit.ways, _columns(builder, sig.args[0], unit)), unit.notes)
    first = _at(builder, unit.first, builder.mul(values[1], words))
    return _made(context, builder, sig.return_type, first=first, ways=unit.ways, policy=unit.policy, notes=unit.notes)


@lower_builtin(operator.getitem, _Words, types.int64)
def _get_word(context: Any, builder: Any, sig: Any, values: Any) -> Any:
    words = _read(context, builder, sig.args[0], values[0])
    return builder.load(_at(builder, words.first, values[1]))


@lower_builtin(operator.setitem, _Words, types.int64, types.int64)
def _set_word(context: Any, builder: Any, sig: Any, values: Any) -> Any:
    words = _read(context, builder, sig.args[0], values[0])
    builder.store(values[2], _at(builder, words.first, values[1]))
    return context.get_dummy_value()


@intrinsic
def _fetch_set(_: Any, kept: Any) -> Any:
    def generate(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        first = _read(context, builder, sig.args[0], values[0]).first
        ask(builder, first)
        ask(builder, _at(builder, first, 8))
        return context.get_dummy_value()

    return types.none(kept), generate


@intrinsic
def _core_of(_: Any, cores: Any) -> Any:
    def generate(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        first = context.make_array(sig.args[0])(context, builder, values[0]).data
        return _made(context, builder, _CORE, first=first)

    return _CORE(cores), generate


@intrinsic
def _core_after(_: Any, core: Any, words: Any) -> Any:
    def generate(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        first = builder.gep(_read(context, builder, _CORE, values[0]).first, [values[1]])
        return _made(context, builder, _CORE, first=first)

    return _CORE(core, types.int64), generate


@register_jitable(**_INLINE)
def _words_of(words: Any) -> Any:
    return words


def silicon(header: np.dtype[Any], names: tuple[str, ...], keyed: int) -> Silicon:
    """Return what compiled code sees, and teach numba the attributes of a core."""
    fields: Any = header.fields
    units, start = fields["units"][:2]
    rows, offset = units.fields["place"][:2]
    place = (start + offset) >> 3
    llc_of: Any = None
    for row, name in enumerate(names):
        kind, generate = _unit(place + row * rows.shape[1], 2 if row < keyed else 1)
        if name == "llc":
            llc_of = _llc_of(kind, generate)
        else:
            _attribute(_Core, name, kind, generate)
    for name, (field, offset, *_) in fields.items():
        _attribute(_Core, name, *_field(field, offset >> 3))
    return Silicon(_core_of, llc_of, _words_of, _fetch_set, _core_after)


def _llc_of(kind: types.Type, unit: Generate) -> Any:
    """Return what gives the LLC, which lies elsewhere than the cores that tell its geometry."""

    @intrinsic
    def llc_of(_: Any, cores: Any, llc: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            core, there = (
                _made(context, builder, _CORE, first=context.make_array(array)(context, builder, value).data)
                for array, value in zip(sig.args, values, strict=True)
            )
            made = unit(context, builder, _CORE, _read(context, builder, _CORE, core))
            placed = _read(context, builder, kind, made)
            placed.first = _read(context, builder, _CORE, there).first
            return placed._getvalue()

        return kind(cores, llc), generate

    return llc_of


def _unit(place: int, columns: int) -> tuple[types.Type, Generate]:
    """Return the type of a unit, and what emits it, by where its row in the header is."""
    kind = _Unit(columns)

    def generate(context: Any, builder: Any, of: _Core, core: Any) -> Any:
        words = (builder.load(_at(builder, core.first, place + number)) for number in (0, 1, 2, 3, 5))
        first, sets, ways, policy, notes = words
        start = _at(builder, core.first, first)
        return _made(context, builder, kind, first=start, sets=sets, ways=ways, policy=policy, notes=notes)

    return kind, generate


def _field(field: np.dtype[Any], offset: int) -> tuple[types.Type, Generate]:
    """Return the type of a field of the header, and what emits it."""
    if field.names:
        record = from_dtype(field)
        return record, lambda context, builder, of, core: builder.bitcast(
            _at(builder, core.first, offset), context.get_value_type(record)
        )
    if field.shape:
        return _WORDS, lambda context, builder, of, core: _made(
            context, builder, _WORDS, first=_at(builder, core.first, offset), count=_WORD(field.shape[0])
        )
    return types.int64, lambda context, builder, of, core: builder.load(_at(builder, core.first, offset))
