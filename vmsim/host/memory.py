"""The host's frames, its buddy allocator and its watermarks (Linux mm/page_alloc.c, mm/vmscan.c)."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import simpy
from numpy.typing import NDArray

from vmsim.base.clock import Clock
from vmsim.frames.buddy import (
    allocate,
    allocate_for,
    allocate_on,
    count_states,
    free,
    free_many,
    free_owned,
    hand_over,
    make_zone,
    owned,
)
from vmsim.frames.nodes import Nodes, make_nodes, marks_of, node_of
from vmsim.frames.records import MAX_ORDER, NO_FRAME, State
from vmsim.host.rmap import ReverseMap
from vmsim.scenario import Marks
from vmsim.tables.pages import move_words

__all__ = ["HOST", "HostMemory", "Request", "Shrinker"]

HOST = -1  # owner of frames that belong to no VM

Pages = NDArray[np.int64]

_NONE = np.empty(0, np.int64)


class Request(NamedTuple):
    """Frames that somebody waits for."""

    asker: int
    owner: int
    frames: int
    state: State
    event: simpy.Event
    patient: bool  # who waits is no vCPU, and goes on when the VM is gone


class Shrinker(Protocol):
    """Who takes pages from VMs when memory is short."""

    def wake(self) -> None:
        """Learn that memory is short, and no pool has any to spare."""

    def starving(self) -> None:
        """Learn that somebody waits for memory."""

    def shrink(self, owner: int, goal: int) -> tuple[int, int]:
        """Take about `goal` pages from one VM; return how many, and the cycles of it; -1: not just now."""
        ...


class HostMemory:
    """Frames of the host, who owns each, and who waits for one.

    Below the `min` watermark nothing is granted: who asks waits until frames come back. Below `low` the event
    `low` calls for reclaim, which ends at `high`.

    Parameters
    ----------
    env : Clock
    frames : int
    marks : Marks
    nodes : Nodes, optional
        What its frames are divided into; without, they are one node's.

    Attributes
    ----------
    nodes : Nodes
        What its frames are divided into, one where nothing else was said.
    unpinned : Event
        Triggered the next time that pages are pinned no more.
    failures : Counter
        Failed allocations of blocks although enough frames were free (external fragmentation), by owner and order.
    freed : int
        Frames that have come back so far.
    pins : int32[frames]
        How many requests of devices pin each frame: a pinned frame must not be moved, taken or freed.
    shrinker : Shrinker or None
        Who takes pages from VMs; None: nobody does.
    killer : OomKiller or None
        Who ends VMs where memory has run out.
    dying : set of int
        VMs that are to end because memory has run out: what they wait for comes from the reserve.
    limits : dict
        What VMs may have that are limited, by owner (`host.limits.MemoryLimit`).
    first : callable
        Returns which of the requests that wait, in the order in which they were made, is next.
    served : callable
        Called with a request that is met, and how many frames it got.
    defrag : callable
        Makes a block of 2**order frames for a fault of a VM's memory where none is free, or has somebody make one
        later; returns the cycles that the fault takes for it, 0 where none was made.
    taken : callable
        Called when frames have been taken, where there are nodes.
    copied : list of int
        Frames of each node that pages were copied from or to as they went to another node (`note_copies`).
    shared : ReverseMap
        Frames that several pages lie in. They are the host's own (HOST), in state GUEST, which no others are.
    """

    def __init__(self, env: Clock, frames: int, marks: Marks, nodes: Nodes | None = None) -> None:
        self.env = env
        self.marks = marks
        self.zone, self.frames = make_nodes(*nodes) if nodes else make_zone(frames)
        self._free = self.zone["free"]
        self.nodes = nodes or Nodes([frames], [[0]], 1, [marks_of(frames, frames, *marks)], [0])
        self.copied = [0] * len(self.nodes.sizes)
        self.pins = np.zeros(frames, np.int32)
        self.shared = ReverseMap()
        self.low = env.event()
        self.unpinned = env.event()
        self.failures: Counter[tuple[int, int]] = Counter()
        self.freed = 0
        self.shrinker: Shrinker | None = None
        self.killer: Any = None
        self.dying: set[int] = set()
        self.limits: dict[int, Any] = {}
        self._waiting: deque[Request] = deque()
        self.first: Callable[[Sequence[Request]], int] = _who_asked_first
        self.served: Callable[[Request, int], None] = _not_noted
        self.defrag: Callable[[int], int] = _nothing
        self.taken: Callable[[], None] = _not_told

    @property
    def free(self) -> int:
        """Free frames."""
        return int(self._free[0])

    @property
    def size(self) -> int:
        """All frames."""
        return len(self.frames)

    def take(self, owner: int, count: int, state: State, *, reserve: int = 0, whose: int | None = None) -> Pages:
        """Return up to `count` frames at once, leaving at least `reserve` free; int64[n], 0 ≤ n ≤ count.

        They are from the nodes that the policy of `whose` VM says, without it the owner's.
        """
        count = min(count, self.free - reserve)
        if count <= 0:
            self._watch()
            return _NONE
        pfns = np.empty(count, np.int64)
        got = allocate_for(self.zone, self.frames, int(state), owner, owner if whose is None else whose, pfns)
        self._watch()
        return pfns[:got]

    def take_block(self, owner: int, order: int, state: State, *, held: int = 0) -> int:
        """Return the first frame of a free block of 2**order above the min watermark, or NO_FRAME.

        `held` frames are the owner's already and will be given back for the block.
        """
        if self.free + held - (1 << order) < self.marks.min:
            return NO_FRAME
        pfn = int(allocate(self.zone, self.frames, order, int(state), owner))
        if pfn == NO_FRAME:
            self.failures[owner, order] += 1
        self._watch()
        return pfn

    def free_on(self, node: int) -> int:
        """Return how many frames of a node are free."""
        return int(self.zone["free"][1 + node])

    def take_on(self, node: int, count: int, *, order: int = 0, least: int = 0) -> Pages:
        """Return up to `count` blocks of 2**order frames of a node, by their first frames, the host's own for now.

        `least` frames of the node stay free.
        """
        pfns = np.empty(count, np.int64)
        got = allocate_on(self.zone, self.frames, node, order, int(State.HOST), HOST, least, pfns)
        self._watch()
        return pfns[:got]

    def note_copies(self, old: Pages, to: int) -> None:
        """Note that pages were copied from some frames, int64[n], to as many of a node: its bandwidth was used."""
        for node, count in enumerate(np.bincount(node_of(self.zone, old), minlength=len(self.copied)).tolist()):
            self.copied[node] += count
        self.copied[to] += len(old)

    def has_block(self, owner: int, order: int) -> bool:
        """Whether `take_block` would give one; if it would fail, that is a failure as there."""
        if self.free - (1 << order) < self.marks.min:
            return False
        found = bool((self.zone["heads"][:, :, order:] != NO_FRAME).any())
        self.failures[owner, order] += not found
        return found

    def unusable(self, order: int) -> float:
        """Return the share of free memory in blocks of less than `order`: 0, none, to 1, all, or nothing is free.

        The unusable free space index of M. Gorman and Linux (mm/vmstat.c, unusable_free_index).
        """
        usable = sum(self._listed(each) << each for each in range(order, MAX_ORDER + 1))
        return 1 - usable / self.free if self.free else 1.0

    def request(self, owner: int, count: int, state: State, *, asker: int, patient: bool = False) -> simpy.Event:
        """Return an event that gives 1 to `count` frames as soon as the min watermark allows.

        First come, first served; `asker` is the VM on whose behalf, whoever is to own the frames. Who is not `patient`
        is a vCPU, and may be given the error in their place with which its VM ends (`break_off`).
        """
        event = self.env.event()
        self._waiting.append(Request(asker, owner, count, state, event, patient))
        self._serve()
        return event

    def withdraw(self, event: simpy.Event) -> None:
        """Undo a request that nobody waits for any more; frames that it has been granted are free again."""
        if event.triggered:
            self.give(cast(Pages, event.value))
        else:
            self._waiting = deque(each for each in self._waiting if each.event is not event)

    def give(self, pfns: Pages, order: int = 0) -> None:
        """Take back blocks of 2**order frames."""
        free_many(self.zone, self.frames, order, pfns)
        self.returned(len(pfns) << order)

    def returned(self, count: int) -> None:
        """Note that so many frames are free again; who waits gets them."""
        self.freed += count
        self._serve()

    def give_block(self, pfn: int, order: int) -> None:
        """Take back one block."""
        free(self.zone, self.frames, pfn, order)
        self.returned(1 << order)

    def give_all(self, owner: int) -> int:
        """Take back everything a VM has; return how many frames."""
        count = int(free_owned(self.zone, self.frames, owner))
        self.returned(count)
        return count

    def pin(self, pfns: Pages) -> None:
        """Keep frames where they are until they are unpinned as often (Linux pin_user_pages, mm/gup.c)."""
        np.add.at(self.pins, pfns, 1)

    def unpin(self, pfns: Pages) -> None:
        """Undo one `pin` of the same frames; who waits for memory that can be moved hears of it (`unpinned`)."""
        np.subtract.at(self.pins, pfns, 1)
        self.unpinned.succeed()
        self.unpinned = self.env.event()

    def count(self, owner: int) -> dict[str, int]:
        """Return how many frames a VM has, by lower-case name of their State."""
        counts = count_states(self.zone, self.frames, owner)
        return {state.name.lower(): int(counts[state]) for state in State if state != State.FREE}

    def tally(self, owner: int) -> dict[str, int]:
        """Return how many frames a VM has, by their State, and by what they are in each node."""
        return self.count(owner) | self._count_by_node(owner)

    def _count_by_node(self, owner: int) -> dict[str, int]:
        """Return how many frames a VM has in each node, of its pages and of tables; none: there are no nodes."""
        if len(self.zone) == 1:
            return {}
        pfns = owned(self.zone, self.frames, owner)
        nodes, tables = node_of(self.zone, pfns), self.frames["state"][pfns] == State.TABLE
        found = {"page": np.bincount(nodes[~tables], minlength=len(self.zone) - 1)}
        found["table"] = np.bincount(nodes[tables], minlength=len(self.zone) - 1)
        return {f"{what}_node_{node}": int(n) for what, counts in found.items() for node, n in enumerate(counts)}

    def hand_over(self, pfns: Pages, owner: int, state: State) -> None:
        """Give frames, none of them free, to another owner for another use."""
        hand_over(self.zone, self.frames, pfns, owner, int(state))

    def make_shared(self, pfn: int) -> None:
        """Make a VM's frame one that several pages can lie in."""
        self.hand_over(np.array([pfn]), HOST, State.GUEST)
        self.frames["rmap"][pfn] = 0

    def free_shared(self, pfn: int) -> None:
        """Take back a frame that no page lies in any more."""
        self.give(np.array([pfn]))

    def move_shared(self, words: Pages, old: int, new: int) -> None:
        """Move the pages that lie in a frame to another, and have all processors forget the old one.

        Linux: mm/migrate.c, by `rmap_walk_ksm`; mm/ksm.c, `folio_migrate_ksm`. The two frames change hands as by
        `GuestMemory.move`.
        """
        users = self.shared.users(old)
        for memory, number in users:
            memory.forget_all(memory.leave_frame(number))
        move_words(words, old, new)
        whose, state = int(self.frames["owner"][new]), State(int(self.frames["state"][new]))
        self.make_shared(new)
        self.hand_over(np.array([old]), whose, state)
        self.frames["rmap"][old] = 0
        for memory in dict.fromkeys(memory for memory, _ in users):
            memory.enter_frame([number for whose, number in users if whose is memory], old, new)
        self.shared.rename(old, new)

    @property
    def missing(self) -> int:
        """Frames that lack until the high watermark is reached and nobody waits."""
        return self.marks.high - self.free + sum(each.frames for each in self._waiting)

    @property
    def starving(self) -> bool:
        """Whether somebody waits for frames."""
        return bool(self._waiting)

    @property
    def first_request(self) -> Request:
        """Who has waited longest."""
        return self._waiting[0]

    def call_reclaim(self) -> None:
        """Ask for spare pages to be taken from the pools."""
        if not self.low.triggered:
            self.low.succeed()

    def let_die(self, owner: int) -> None:
        """Have a VM that is to end take what it waits for from the reserve (ALLOC_OOM)."""
        self.dying.add(owner)
        self._serve()

    def break_off(self, owner: int, error: Exception) -> None:
        """Give vCPUs of a VM that wait for frames the error instead: a fatal signal, where the reserve is used up."""
        left, self._waiting = self._waiting, deque()
        for each in left:
            if each.asker == owner and not each.patient:
                each.event.succeed(error)
            else:
                self._waiting.append(each)

    def waits(self, owner: int) -> bool:
        """Return whether anybody waits for memory on a VM's behalf."""
        return any(request.asker == owner for request in self._waiting)

    def _serve(self) -> None:
        while self._waiting:
            dying = self._dying_first() if self.dying else None
            if self.free <= (self.marks.min if dying is None else 0):
                self.call_reclaim()
                if helper := self.shrinker or self.killer:
                    helper.starving()
                return
            at = self.first(self._waiting) if dying is None else dying
            first = self._waiting[at]
            if dying is None:
                pfns = self.take(first.owner, first.frames, first.state, reserve=self.marks.min, whose=first.asker)
            else:  # who ends gets no more from the reserve than it must
                pfns = self.take(first.owner, 1, first.state, whose=first.asker)
            del self._waiting[at]
            self.served(first, len(pfns))
            first.event.succeed(pfns)

    def _dying_first(self) -> int | None:
        """Return which of the requests is the first of a VM that is to end; None: none is."""
        return next((at for at, each in enumerate(self._waiting) if each.asker in self.dying), None)

    def _listed(self, order: int) -> int:
        """Return how many free blocks of 2**order frames there are."""
        count = 0
        for block in self.zone["heads"][:, :, order].ravel().tolist():
            while block != NO_FRAME:
                count += 1
                block = int(self.frames["next"][block])
        return count

    def _watch(self) -> None:
        if self.free < self.marks.low:
            self.call_reclaim()
        if len(self.zone) > 1:
            self.taken()


def _who_asked_first(waiting: Sequence[Request]) -> int:
    return 0


def _not_told() -> None:
    """Do nothing: nobody balances nodes."""


def _nothing(order: int) -> int:
    return 0


def _not_noted(request: Request, frames: int) -> None:
    """Note nothing."""
