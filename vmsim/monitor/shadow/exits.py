"""Why a guest under a shadow monitor exits, and what compiled code keeps of such exits until they are accounted for."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

__all__ = ["ACCOUNT", "LATENCIES", "SPILL", "Exit"]


class Exit(IntEnum):
    """Why a guest under a shadow monitor exits, as far as it is handled here."""

    HOST_FAULT = 0
    SHADOW_FILL = 1
    TRUE_FAULT = 2
    PT_READ = 3
    PT_WRITE = 4
    DEBUG = 5


SPILL = -2  # the status where no fault is left over, but frames in stock are
LATENCIES = 4096  # that are kept until they are accounted for

# What the exits of a monitor cost, and those handled here that are not yet accounted for.
ACCOUNT = np.dtype(
    (
        np.record,
        [
            ("fault", "i8"),  # cycles of an exit and entry at a page fault
            ("inject", "i8"),
            ("each_read", "i8"),  # of each entry of the guest's tables that the monitor's walk reads
            ("host_walk", "i8"),  # and of the host's
            ("restock", "i8"),
            ("emulated", "i8"),  # of an access to a hidden table
            ("stepped", "i8"),  # 1: with a second exit
            ("debug", "i8"),  # that costs this
            ("left", "i8"),  # of a store that leaves its table to the guest
            ("now", "i8"),  # cycles since the vCPU was last run from outside
            ("spent", "i8"),  # in the exit under way
            ("exits", "i8", (len(Exit),)),
            ("cycles", "i8", (len(Exit),)),
            ("walks", "i8"),
            ("flush", "i8"),  # 1: the TLBs are to be flushed before the guest goes on
            ("logged", "i8"),
            ("latency", "i8", (LATENCIES,)),
            ("place", "i8", (8,)),  # of the entries on the way to a page, the root's first; then scratch
            ("value", "i8", (8,)),
            ("trapped", "i8", (8,)),
        ],
    )
)
