"""Mode native in compiled code: whatever stops the program is its kernel's."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vmsim.contracts.commit import commit_fault, handle, reserve_fault
from vmsim.jit import routine

__all__ = ["NativeMode"]


class NativeMode(NamedTuple):
    """No monitor."""

    memory: np.ndarray  # int64[:], host-physical memory


@handle.register(NativeMode)
@routine
def _handle(mode, guest, reason, gva, gpa, code):
    """Hand a page fault to the kernel."""
    missing = reserve_fault(guest, mode, gva, code)
    if missing < 0:
        return False
    commit_fault(guest, mode, gva, code, missing)
    return True
