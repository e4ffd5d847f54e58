"""What compiled code sees of a core and of the LLC."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["Silicon"]


class Silicon(NamedTuple):
    """Functions for kernels, of what `opaque_core` and `opaque_llc` give."""

    core_of: Callable[
        ..., Any
    ]  # the core, its fields attributes; len(core.l1), core.l1[index].tag[way], len(....policy)
    llc_of: Callable[..., Any]  # of cores and their LLC, its sets
    words_of: Callable[..., Any]  # a core's words, int64[words]: what is written to the one is written to the other
    fetch_set: Callable[..., Any]  # ask for the tags of a set of the LLC, as `prefetch` does
    core_after: Callable[..., Any]  # of a core, the one that begins so many words after it
    figures_of: Callable[..., tuple[int, ...]] | None = None
