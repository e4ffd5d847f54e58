"""Have the simulating machine fetch table entries before a walk needs them.

Half the time of walks all over a large memory is spent waiting for the entries that map pages, which no cache of the
simulating machine holds. The accesses to come are known: after a walk the entries that the next ones will want are
asked for, through tables that each core remembers. Nothing simulated depends on it: a table that is wrong, or is none
any more, has a line fetched that nobody needs.
"""

from __future__ import annotations

from typing import Any

import vmsim.jit.plain_numba  # noqa: F401  (before numba)

# isort: split

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic

from vmsim.jit import leaf, routine
from vmsim.machine.caches import LINE_SHIFT, llc_set
from vmsim.machine.formats import ENTRIES, FRAME, PAGE_SHIFT
from vmsim.machine.layout import TABLES
from vmsim.machine.memory import read_word
from vmsim.machine.pwc import GUEST, NESTED

__all__ = ["entry_of", "look_ahead", "remember"]

_SHIFT = PAGE_SHIFT + 9  # of what a table of small pages maps
_FAR = 4  # accesses ahead at which a guest's entry is asked for
_LATER = 2  # accesses later the nested one is, for which the guest's must be there


def _prefetch(builder: Any, place: Any) -> None:
    line = builder.bitcast(place, ir.IntType(8).as_pointer())
    kind = ir.IntType(32)
    shape = ir.FunctionType(ir.VoidType(), [line.type, kind, kind, kind])
    prefetch = builder.module.declare_intrinsic("llvm.prefetch", [line.type], shape)
    builder.call(prefetch, [line, kind(0), kind(3), kind(1)])  # to be read, kept in all caches, as data


@intrinsic
def _word(_: Any, memory: Any, index: Any) -> Any:
    def generate(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        words = context.make_array(sig.args[0])(context, builder, values[0]).data
        _prefetch(builder, builder.gep(words, [values[1]]))
        return context.get_dummy_value()

    return types.none(memory, types.uint64), generate


@intrinsic
def _set(_: Any, kept: Any) -> Any:
    def generate(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        there = cgutils.create_struct_proxy(sig.args[0])(context, builder, value=values[0])
        _prefetch(builder, there.first)
        _prefetch(builder, builder.gep(there.first, [ir.IntType(64)(8)]))
        return context.get_dummy_value()

    return types.none(kept), generate


def _nothing(*_: Any) -> None:
    """Fetch nothing: plain Python is slow for other reasons."""


_PLAIN: bool = config.DISABLE_JIT  # type: ignore[attr-defined]
_fetch_word, _fetch_set = (_nothing, _nothing) if _PLAIN else (_word, _set)


@leaf
def _fetch(core, llc, memory, hpa):
    """Fetch an entry, and the set of the LLC that is searched for it."""
    _fetch_word(memory, np.uint64(hpa >> 3))
    _fetch_set(llc[llc_set(core.llc_slices, len(llc), hpa >> LINE_SHIFT)])


@leaf
def _slot(dimension, address):
    """Return where the table that maps the small pages around `address` is remembered."""
    return np.uint64(2 * (dimension * TABLES + ((address >> _SHIFT) & (TABLES - 1))))


@leaf
def remember(core, dimension, asid, address, table):
    """Remember that the table at hpa `table` maps small pages around `address`."""
    slot = _slot(dimension, address)
    core.tables[slot] = asid | address >> _SHIFT
    core.tables[slot + np.uint64(1)] = table & FRAME


@leaf
def entry_of(core, dimension, asid, address):
    """Return the hpa of the entry that, as far as is remembered, maps the small page of `address`; 0: no idea."""
    slot = _slot(dimension, address)
    if core.tables[slot] != asid | address >> _SHIFT:
        return 0
    return core.tables[slot + np.uint64(1)] + ((address >> PAGE_SHIFT & (ENTRIES - 1)) << 3)


@routine
def look_ahead(core, llc, vm, memory, address, cursor, limit):
    """Fetch what walks for the accesses after `cursor` will read."""
    end = min(cursor + _FAR + 1, limit)
    for place in range(max(vm.ahead, cursor + 1), end):
        hpa = entry_of(core, GUEST, vm.asid, address[np.uint64(place)])
        if hpa:
            _fetch(core, llc, memory, hpa)
    if vm.nested_levels:
        for place in range(max(vm.ahead - _LATER, cursor + 1), end - _LATER):
            hpa = entry_of(core, GUEST, vm.asid, address[np.uint64(place)])
            if hpa:
                hpa = entry_of(core, NESTED, vm.nested_asid, read_word(memory, hpa) & FRAME)
                if hpa:
                    _fetch(core, llc, memory, hpa)
    vm.ahead = end
