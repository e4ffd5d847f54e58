"""The address spaces of a VM, all of its vCPUs'."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vmsim.machine.tags import Kind, Spaces

__all__ = ["VmSpaces"]


class VmSpaces(Sequence[Spaces]):
    """The address spaces of all vCPUs of one VM: what is flushed here is flushed for each.

    Parameters
    ----------
    each : sequence of Spaces
        By the number of the vCPU in its VM.
    """

    def __init__(self, each: Sequence[Spaces]) -> None:
        self._each = [*each]
        self._host = each[0]._host

    def __getitem__(self, number: Any) -> Any:
        return self._each[number]

    def __len__(self) -> int:
        return len(self._each)

    def become(self, tags: Kind) -> None:
        """Turn the bare program into a VM (`Spaces.become`)."""
        for spaces in self._each:
            spaces.become(tags)

    def flush_all(self) -> None:
        """Forget all spaces of the VM, as the host does by interrupts to the cores that run its vCPUs."""
        for spaces in self._each:
            spaces.flush_all()

    def flush_nested(self) -> None:
        """Forget guest-physical and combined mappings on every core."""
        self._host.flush_nested([each.vcpu for each in self._each], {each.nested for each in self._each})

    def close(self) -> None:
        """Forget everything on every core: the VM has ended."""
        for spaces in self._each:
            spaces.close()
