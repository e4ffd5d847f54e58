"""Work of a guest's kernel that no program asks for: drivers' and the memory manager's (Linux, kernel/workqueue.c).

A piece of work is begun by a device's interrupt or by a timer, which finds the first CPU that has not ended. One that
runs leaves its program for it before its next access; one that has nothing to do is woken; one that waits for its host
does it when it goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import simpy

from vmsim.contracts import Steps

__all__ = ["Workqueue"]

_Value = TypeVar("_Value")
Work = Callable[[Any], Steps[_Value]]


class _Piece:
    """One piece of work: what it is, who has it, and the event that it is done."""

    def __init__(self, work: Work[Any], done: simpy.Event, *, interrupt: bool) -> None:
        self.work = work
        self.done = done
        self.interrupt = interrupt
        self.vcpu: Any = None


class Workqueue:
    """The work of one VM's kernel.

    Parameters
    ----------
    vcpus : sequence of Vcpu
        All its vCPUs, by number.
    deliver : callable
        Has a vCPU take a device's interrupt.
    """

    def __init__(self, vcpus: Sequence[Any], deliver: Callable[[Any], None]) -> None:
        self.vcpus = vcpus
        self._deliver = deliver
        self._ended: set[Any] = set()
        self._pieces: list[_Piece] = []

    def run(self, work: Work[_Value], *, interrupt: bool = True) -> Steps[_Value]:
        """Have work done on some CPU; return what it returns. It is called with the vCPU, and must not wait.

        Without `interrupt` a timer of the kernel's own begins it.
        """
        piece = _Piece(work, self.vcpus[0].env.event(), interrupt=interrupt)
        self._pieces.append(piece)
        self._give(piece)
        value: _Value = yield piece.done
        return value

    def retire(self, vcpu: Any) -> None:
        """Note that a vCPU does nothing more: others do what it was to do. With the last one all work ends undone."""
        self._ended.add(vcpu)
        for piece in [each for each in self._pieces if each.vcpu is vcpu]:
            self._give(piece)

    @property
    def alive(self) -> bool:
        """Whether there is a vCPU that has not ended."""
        return len(self._ended) < len(self.vcpus)

    def _give(self, piece: _Piece) -> None:
        piece.vcpu = next((vcpu for vcpu in self.vcpus if vcpu not in self._ended), None)
        if piece.vcpu is not None:
            piece.vcpu.interrupt(partial(self._do, piece=piece))
            piece.vcpu.wake()

    def _do(self, vcpu: Any, *, piece: _Piece) -> Steps[None]:
        if piece.vcpu is not vcpu or piece not in self._pieces:  # another has it
            return
        self._pieces.remove(piece)
        if piece.interrupt:
            self._deliver(vcpu)
        piece.done.succeed((yield from piece.work(vcpu)))
