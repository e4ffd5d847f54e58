"""ksmd's pass over the pages of one memory, compiled: which pages may be equal to another, the rest counted."""

from __future__ import annotations

import numpy as np

from vmsim.frames.records import State
from vmsim.host.identity import CHANGED, OWN, identify
from vmsim.jit import kernel, leaf, routine
from vmsim.machine.formats import FRAME, LARGE, PAGE_SHIFT, PRESENT
from vmsim.machine.memory import read_entry, width_of
from vmsim.tables.backing import OWNED, SHARED

__all__ = ["ITEM", "PASS", "make_pass", "scan_pages", "skip_age"]

_NEVER = -4  # the identity that a page had before it was first looked at
_OLDEST = 255

# What ksmd keeps of a page: Linux's ksm_rmap_item.
ITEM = np.dtype(
    (
        np.record,
        [
            ("checksum", "i8"),  # the identity when it was last looked at, less _NEVER; 0: it never was
            ("age", "u1"),
            ("remaining_skips", "u1"),
        ],
    )
)

# One pass: where it is, and what it has counted.
PASS = np.dtype(
    (
        np.record,
        [
            ("cursor", "i8"),
            ("scanned", "i8"),
            ("skipped", "i8"),
            ("stable", "i8"),  # of the scanned, those that share a frame already
            ("volatile", "i8"),  # whose contents have changed since, or were not looked at before
            ("unique", "i8"),  # that went into the unstable tree, for none equals them
        ],
    )
)


def make_pass() -> np.ndarray:
    """Return a pass that has not begun, PASS[1]."""
    return np.zeros(1, PASS)


@leaf
def skip_age(age):
    """Return how many rounds a page of an age is left out (mm/ksm.c, skip_age)."""
    if age <= 3:
        return 1
    if age <= 5:
        return 2
    return 4 if age <= 8 else 8


@routine
def _skips(item):
    """Return whether a page is left out this time (mm/ksm.c, should_skip_rmap_item)."""
    age = np.int64(item.age)
    if age != _OLDEST:
        item.age = age + 1
    if age < 3:
        return False
    if item.remaining_skips == 0:
        item.remaining_skips = skip_age(age)
        return False
    item.remaining_skips -= 1
    return True


@leaf
def _has_page(memory, backing, frames, contents, number):
    """Return 1 where a number has a page of its own that may be shared, 2 where it is shared, else 0."""
    if len(backing):
        word = backing[number]
        return np.int64(1) if word & OWNED else np.int64(2) if word & SHARED else np.int64(0)
    frame = frames[number]
    if frame.state != State.GUEST or frame.owner != contents[0].owner or frame.rmap <= 0:
        return np.int64(0)
    entry = read_entry(memory, np.int64(frame.rmap), width_of(contents[0].levels))
    mine = entry & PRESENT != 0 and entry & LARGE == 0 and (entry & FRAME) >> PAGE_SHIFT == number
    return np.int64(1) if mine else np.int64(0)


@kernel
def scan_pages(memory, backing, frames, contents, late, items, passes, budget, smart, numbers, identities):
    """Look at pages from the cursor on, until so many have been looked at or all have.

    Parameters
    ----------
    memory, backing, frames, contents
        As of `identity.identify`.
    late : bool[pages]
        Pages that were written to though the guest's entries do not say so yet; empty: there are none.
    items : ITEM[pages]
        What is kept of each.
    passes : PASS[1]
        Where it is; the counts are set.
    budget : int
        Pages to look at; those that are left out are none.
    smart : bool
        Leave pages out (`smart_scan`).
    numbers, identities : int64[budget]
        Filled: the pages that may be equal to another, for they hold what they held, and what that is.

    Returns
    -------
    int
        How many were filled.
    """
    state = passes[0]
    state.scanned = state.skipped = state.stable = state.volatile = state.unique = 0
    found = np.int64(0)
    number = np.int64(state.cursor)
    size = len(backing) if len(backing) else len(frames)
    while number < size and state.scanned < budget:
        kind = _has_page(memory, backing, frames, contents, number)
        if kind == 1 and smart and _skips(items[number]):
            state.skipped += 1
        elif kind == 2:
            state.scanned += 1
            state.stable += 1
        elif kind == 1:
            identity = identify(memory, backing, frames, contents, number)
            if len(late) and late[number] and identity >= 0:
                identity = np.int64(OWN)
            state.scanned += 1
            checksum = identity - _NEVER
            if identity <= CHANGED or items[number].checksum != checksum:
                state.volatile += 1
                items[number].checksum = checksum
            elif identity == OWN:
                state.unique += 1
            else:
                numbers[found] = number
                identities[found] = identity
                found += 1
        number += 1
    state.cursor = number
    return found
