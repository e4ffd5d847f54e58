"""A core and the LLC as compiled code sees them, of any geometry: the fields of layout.py, attributes."""

from __future__ import annotations

from vmsim.jit import silicon
from vmsim.machine.layout import CACHES, HEADER, Keyed

__all__ = ["SILICON", "core_after", "core_of", "fetch_set", "llc_of", "words_of"]

SILICON = silicon(HEADER, [*(unit.name.lower() for unit in Keyed), *CACHES], len(Keyed))
core_of, llc_of, words_of, fetch_set, core_after = SILICON[:5]
