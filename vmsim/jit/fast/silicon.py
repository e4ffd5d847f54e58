"""A core and an LLC as kernels see them: of any geometry, until they are specialised for one.

Python finds a unit's place, sets and ways in the types of the records. Compiled code reads them from a table of figures
that has no values yet; a vCPU's run is typed and lowered once with it, and LLVM folds the values in when it is made for
a geometry (specialise.py): the figures then are constants, loops over ways unroll.
"""

from __future__ import annotations

import operator
from typing import Any

import vmsim.jit.clean_numba  # noqa: F401  (before numba)

# isort: split

import numpy as np
from llvmlite import ir
from numba import from_dtype, types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.core.datamodel.registry import register_default
from numba.core.typing.templates import AbstractTemplate, AttributeTemplate, infer_getattr, infer_global, signature
from numba.extending import intrinsic, lower_builtin, lower_getattr_generic
from numba.np.arrayobj import populate_array
from numpy.typing import NDArray

from vmsim.jit.fast.specialise import FIGURES
from vmsim.jit.prefetch import ask
from vmsim.jit.silicon import Silicon

__all__ = ["silicon"]

_WORD = ir.IntType(64)


class _Core(types.Opaque):
    """A pointer to the words of a core.

    Parameters
    ----------
    header, names, keyed
        As of `silicon`.
    """

    def __init__(self, header: np.dtype[Any], names: tuple[str, ...], keyed: int) -> None:
        super().__init__("core")
        self.header = header
        self.names = names
        self.keyed = keyed

    def unit(self, name: str) -> _Unit:
        """Return the type of a unit."""
        return _Unit(2 if self.names.index(name) < self.keyed else 1)

    def figure(self, name: str) -> int:
        """Return which figure is the first of a unit's five."""
        return 5 * self.names.index(name)

    @property
    def size(self) -> int:
        """Which figure is a core's size in words."""
        return 5 * len(self.names)

    def figures(self, cores: NDArray[Any], llc: NDArray[Any]) -> tuple[int, ...]:
        """Return those of a geometry: of each unit its first word, sets, ways, policy and notes; the size of a core."""
        found: list[int] = []
        for name in self.names:
            if name == "llc":
                kept, sets, offset = llc.dtype, len(llc), 0
            else:
                unit, offset = cores.dtype.fields[name][:2]  # type: ignore[index]
                kept, sets = unit.base, unit.shape[0]
            found += offset >> 3, sets, *(kept[name].shape[0] for name in ("tag", "policy", "notes"))
        return *found, cores.dtype.itemsize >> 3


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


_WORDS = _Words("words")
_POINTER = types.CPointer(types.int64)


def _struct(*members: tuple[str, types.Type]) -> Any:
    class Model(models.StructModel):
        def __init__(self, manager: Any, kind: types.Type) -> None:
            super().__init__(manager, kind, [*members])

    return Model


register_default(_Core)(models.OpaqueModel)
_WAYS = ("first", _POINTER), ("ways", types.int64), ("policy", types.int64), ("notes", types.int64)
register_default(_Unit)(_struct(*_WAYS, ("sets", types.int64)))
register_default(_Set)(_struct(*_WAYS))
register_default(_Words)(_struct(("first", _POINTER), ("count", types.int64)))


def _figure(builder: Any, core: _Core, number: int) -> Any:
    """Load a figure."""
    table = builder.module.globals.get(FIGURES)
    if table is None:
        table = ir.GlobalVariable(builder.module, ir.ArrayType(_WORD, core.size + 1), FIGURES)
        table.global_constant = True
    return builder.load(cgutils.gep_inbounds(builder, table, 0, number))


def _fields(context: Any, builder: Any, kind: types.Type, value: Any) -> Any:
    return cgutils.create_struct_proxy(kind)(context, builder, value=value)


def _made(context: Any, builder: Any, kind: types.Type, **fields: Any) -> Any:
    struct = cgutils.create_struct_proxy(kind)(context, builder)
    for name, value in fields.items():
        setattr(struct, name, value)
    return struct._getvalue()


def _unit(context: Any, builder: Any, core: _Core, kind: _Unit, words: Any, name: str) -> Any:
    first, sets, ways, policy, notes = (_figure(builder, core, core.figure(name) + number) for number in range(5))
    start = builder.gep(words, [first], inbounds=True)
    return _made(context, builder, kind, first=start, sets=sets, ways=ways, policy=policy, notes=notes)


@infer_getattr
class _OfCore(AttributeTemplate):
    key = _Core

    def generic_resolve(self, core: _Core, name: str) -> types.Type | None:  # type: ignore[override]
        if name in core.names:
            return core.unit(name)
        if name not in core.header.names:  # type: ignore[operator]
            return None
        field = core.header[name]
        if field.names:
            return from_dtype(field)  # type: ignore[no-any-return]
        return _WORDS if field.shape else types.int64


@lower_getattr_generic(_Core)
def _get_of_core(context: Any, builder: Any, core: _Core, value: Any, name: str) -> Any:
    words = builder.bitcast(value, _WORD.as_pointer())
    if name in core.names:
        return _unit(context, builder, core, core.unit(name), words, name)
    field, offset = core.header.fields[name][:2]  # type: ignore[index]
    place = cgutils.gep_inbounds(builder, words, offset >> 3)
    if field.names:
        return builder.bitcast(place, context.get_value_type(from_dtype(field)))
    if field.shape:
        return _made(context, builder, _WORDS, first=place, count=_WORD(field.shape[0]))
    return builder.load(place)


@infer_getattr
class _OfSet(AttributeTemplate):
    key = _Set

    def generic_resolve(self, kept: _Set, name: str) -> types.Type:  # type: ignore[override]
        return _WORDS


@lower_getattr_generic(_Set)
def _get_of_set(context: Any, builder: Any, kept: _Set, value: Any, name: str) -> Any:
    there = _fields(context, builder, kept, value)
    if name == "policy":  # a number, as the length of nothing
        return _made(context, builder, _WORDS, first=there.first, count=there.policy)
    column = _WORD({"tag": 0, "value": 1, "age": kept.columns}.get(name, 0))
    if name == "notes":
        column = _columns(builder, kept, there)
    first = builder.gep(there.first, [builder.mul(there.ways, column)], inbounds=True)
    return _made(context, builder, _WORDS, first=first, count=there.notes if name == "notes" else there.ways)


def _columns(builder: Any, kind: _Unit | _Set, of: Any) -> Any:
    """Return how many words a way has: of its tag, its value, its age."""
    ages = builder.zext(builder.icmp_signed("!=", of.policy, _WORD(0)), _WORD)
    return builder.add(ages, _WORD(kind.columns))


@infer_global(len)
class _Len(AbstractTemplate):
    def generic(self, arguments: Any, keywords: Any) -> Any:
        return signature(types.int64, *arguments) if isinstance(arguments[0], _Unit | _Words) else None


@lower_builtin(len, _Unit)
def _sets(context: Any, builder: Any, sig: Any, values: Any) -> Any:
    return _fields(context, builder, sig.args[0], values[0]).sets


@lower_builtin(len, _Words)
def _count(context: Any, builder: Any, sig: Any, values: Any) -> Any:
    return _fields(context, builder, sig.args[0], values[0]).count


@infer_global(operator.getitem)
class _GetItem(AbstractTemplate):
    def generic(self, arguments: Any, keywords: Any) -> Any:
        if isinstance(arguments[0], _Unit | _Words):
            of = arguments[0]
            return signature(_Set(of.columns) if isinstance(of, _Unit) else types.int64, of, types.int64)
        return None


@infer_global(operator.setitem)
class _SetItem(AbstractTemplate):
    def generic(self, arguments: Any, keywords: Any) -> Any:
        if isinstance(arguments[0], _Words):
            return signature(types.none, arguments[0], types.int64, types.int64)
        return None


@lower_builtin(operator.getitem, _Unit, types.int64)
def _get_set(context: Any, builder: Any, sig: Any, values: Any) -> Any:
    unit = _fields(context, builder, sig.args[0], values[0])
    words = builder.add(builder.mul(unit.ways, _columns(builder, sig.args[0], unit)), unit.notes)
    first = builder.gep(unit.first, [builder.mul(values[1], words)], inbounds=True)
    return _made(context, builder, sig.return_type, first=first, ways=unit.ways, policy=unit.policy, notes=unit.notes)


@lower_builtin(operator.getitem, _Words, types.int64)
def _get_word(context: Any, builder: Any, sig: Any, values: Any) -> Any:
    first = _fields(context, builder, sig.args[0], values[0]).first
    return builder.load(builder.gep(first, [values[1]], inbounds=True))


@lower_builtin(operator.setitem, _Words, types.int64, types.int64)
def _set_word(context: Any, builder: Any, sig: Any, values: Any) -> Any:
    first = _fields(context, builder, sig.args[0], values[0]).first
    builder.store(values[2], builder.gep(first, [values[1]], inbounds=True))
    return context.get_dummy_value()


@intrinsic
def _fetch_set(_: Any, kept: Any) -> Any:
    def generate(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        first = _fields(context, builder, sig.args[0], values[0]).first
        ask(builder, first)
        ask(builder, builder.gep(first, [_WORD(8)]))
        return context.get_dummy_value()

    return types.none(kept), generate


@intrinsic
def _core_after(_: Any, core: Any, words: Any) -> Any:
    def generate(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        first = builder.gep(builder.bitcast(values[0], _WORD.as_pointer()), [values[1]])
        return builder.bitcast(first, context.get_value_type(core))

    return core(core, types.int64), generate


def silicon(header: np.dtype[Any], names: tuple[str, ...], keyed: int) -> Silicon:
    """Return what compiled code sees of cores and LLCs, the one argument of each function being an array of them."""
    core = _Core(header, names, keyed)

    def first_of(context: Any, builder: Any, kind: Any, value: Any) -> Any:
        return context.make_array(kind)(context, builder, value).data

    @intrinsic
    def core_of(_: Any, cores: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            first = first_of(context, builder, sig.args[0], values[0])
            return builder.bitcast(first, context.get_value_type(core))

        return core(cores), generate

    @intrinsic
    def llc_of(_: Any, cores: Any, llc: Any) -> Any:
        kind = _Unit(1)

        def generate(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            return _unit(context, builder, core, kind, first_of(context, builder, sig.args[1], values[1]), "llc")

        return kind(cores, llc), generate

    @intrinsic
    def words_of(_: Any, cores: Any) -> Any:
        array = types.Array(types.int64, 1, "C")

        def generate(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            made = context.make_array(array)(context, builder)
            first = first_of(context, builder, sig.args[0], values[0])
            shape = cgutils.pack_array(builder, [_figure(builder, core, core.size)])
            strides = cgutils.pack_array(builder, [context.get_constant(types.intp, 8)])
            populate_array(made, first, shape, strides, context.get_constant(types.intp, 8), None)
            return made._getvalue()

        return array(cores), generate

    return Silicon(core_of, llc_of, words_of, _fetch_set, _core_after, core.figures)
