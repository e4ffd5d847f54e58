"""Mode native in compiled code: whatever stops the program is its kernel's."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vmsim.contracts.commit import handle, pass_on

__all__ = ["NativeMode"]


class NativeMode(NamedTuple):
    """No monitor."""

    memory: np.ndarray  # int64[:], host-physical memory


handle.register(NativeMode, pass_on)
