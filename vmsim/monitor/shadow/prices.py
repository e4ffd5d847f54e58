"""Why a guest under a shadow monitor exits where compiled code handles it, and what that costs."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from vmsim.contracts.commit import ROOM

__all__ = ["PRICES", "Exit"]


class Exit(IntEnum):
    """Why a guest under a shadow monitor exits, as far as compiled code handles it."""

    HOST_FAULT = 0
    SHADOW_FILL = 1
    TRUE_FAULT = 2
    PT_READ = 3
    PT_WRITE = 4
    DEBUG = 5
    INVLPG = 6
    WRITE_PROTECT = 7  # of pages that a dirty log is kept of
    NX_SPLIT = 8  # of large pages that are not executable


# What the exits of a monitor cost.
PRICES = np.dtype(
    (
        np.record,
        [
            ("fault", "i8"),  # cycles of an exit and entry at a page fault
            ("other", "i8"),  # and of one for another reason
            ("inject", "i8"),
            ("each_read", "i8"),  # of each entry of the guest's tables that the monitor's walk reads
            ("host_walk", "i8"),  # of finding the host's page of a guest frame
            ("restock", "i8"),
            ("emulated", "i8"),  # of an access to a hidden table
            ("stepped", "i8"),  # 1: with a second exit
            ("debug", "i8"),  # that costs this
            ("left", "i8"),  # of a store that leaves its table to the guest
            ("most", "i8"),  # frames in stock above which some go back to the pool
            ("cr3", "i8"),  # gpa of the guest's root table
            ("others", "i8"),  # 1: the VM has more vCPUs than this
            ("kick", "i8"),  # cycles of interrupting those of them that run
            ("programs", "i8", (2,)),  # accesses of programs to hidden tables of level 1, and to those above, so far
            ("noted", "i8"),  # stores of the guest's kernel that exited for the dirty log, so far
            ("trapped", "i8", (ROOM,)),  # scratch
        ],
    )
)
