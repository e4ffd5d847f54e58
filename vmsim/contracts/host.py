"""Daemons of the host, and how they choose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from vmsim.base.clock import Clock
from vmsim.contracts.monitor import LiveVm
from vmsim.contracts.steps import Steps, Words

__all__ = [
    "Daemon",
    "DaemonHost",
    "Found",
    "FrameRequest",
    "MemoryGovernor",
    "PageLists",
    "Refills",
    "Reserve",
    "SharedHost",
    "SharingVm",
    "Spares",
    "SparesHost",
    "Victims",
]


class DaemonHost(Protocol):
    """The host, as its daemons know it.

    Attributes
    ----------
    env : Clock
        Simulated time.
    host : HostMemory
        Who has which frame.
    daemons : dict
        The daemons that run, by name.
    compaction : Compaction
        Moves pages so that what is free comes together.
    """

    env: Clock
    host: Any
    daemons: dict[str, Any]
    compaction: Any

    @property
    def vms(self) -> Sequence[LiveVm]:
        """All VMs, those that have not begun or have ended among them."""
        ...


class Daemon(Protocol):
    """A process of the host's that works on the memory of its VMs (kswapd, ksmd, khugepaged are Linux's)."""

    def run(self, host: DaemonHost) -> Steps[None]:
        """Work from now on; wait for the next turn by `Clock.background`."""
        ...


class Victims(Protocol):
    """Which pages are taken from VMs."""

    def choose(self, vms: Sequence[LiveVm]) -> tuple[LiveVm, int] | None:
        """Return one of the VMs (there is one at least), and the number of one of its pages; None: no page."""
        ...


class PoolSizes(Protocol):
    """What a scenario says of a pool, in pages of 4 KiB."""

    @property
    def min(self) -> int:
        """Free pages under which it must be refilled."""
        ...

    @property
    def max(self) -> int:
        """Free pages that it may have."""
        ...

    @property
    def batch(self) -> int:
        """Pages of a refill."""
        ...


class Reserve(Protocol):
    """A monitor's free pages, as the policies know them.

    Attributes
    ----------
    owner, shares : int
        The VM, and how much of what is shared out is its.
    env : Clock
        Simulated time.
    least : int
        Pages that are the monitor's to keep when its host is short.
    """

    owner: int
    shares: int
    env: Clock
    least: int

    @property
    def spec(self) -> PoolSizes:
        """What the scenario says of its pool."""
        ...

    @property
    def level(self) -> int:
        """Free pages."""
        ...

    @property
    def wanted(self) -> int:
        """Pages that suspended vCPUs wait for."""
        ...

    @property
    def kept(self) -> int:
        """Pages that it does not give: its least, and what is waited for."""
        ...

    @property
    def room(self) -> int:
        """Pages that it may still get."""
        ...

    @property
    def taken(self) -> int:
        """Pages that its monitor has taken out for good, so far."""
        ...


class Refills(Protocol):
    """When the host refills one pool, and with how many pages."""

    def low(self, pool: Reserve) -> int:
        """Return the level under which the host is called, the pool's maximum at most."""
        ...

    def count(self, pool: Reserve) -> int:
        """Return the pages of the next refill, 1 at least; no more are granted than there is room for."""
        ...


class FrameRequest(Protocol):
    """Frames that somebody waits for."""

    @property
    def asker(self) -> int:
        """The VM on whose behalf."""
        ...

    @property
    def frames(self) -> int:
        """How many, at most."""
        ...


class SparesHost(Protocol):
    """The host, as a policy for spare pages knows it."""

    @property
    def missing(self) -> int:
        """Frames that lack until its high watermark is reached and nobody waits."""
        ...


class Spares(Protocol):
    """Who gives pages when the host is short, and who gets frames."""

    def levels(self, host: SparesHost, reserves: Sequence[Reserve]) -> Iterator[tuple[Any, int]]:
        """Yield who gives, in turn, and what each keeps; it is left when the host is short no more."""
        ...

    def first(self, waiting: Sequence[FrameRequest], reserves: Sequence[Reserve]) -> int:
        """Return which of those who wait, in the order in which they asked, is next."""
        ...

    def served(self, request: FrameRequest, frames: int) -> None:
        """Note that somebody got frames."""


class Found(NamedTuple):
    """What a look at a VM's pages has found.

    Attributes
    ----------
    numbers : int64[n]
        Pages to be taken, which are on no list any more.
    looked : int
        Pages that were looked at.
    young : int
        Pages of which it was found that they had been accessed, and forgotten.
    walked, walk_young : int
        The same of entries that were looked at table by table.
    """

    numbers: Words
    looked: int
    young: int
    walked: int = 0
    walk_young: int = 0


class PageLists(Protocol):
    """In which order a host that is short of memory takes pages; it is told of those that come back.

    Attributes
    ----------
    counts : dict
        What it has done, and found.
    rotates : bool
        Whether a reclaim goes from VM to VM until enough is taken, and the next begins behind the last; else every VM
        gives something. A policy that says nothing of it does not.
    ages : bool
        Whether `age` would do anything for any VM just now. A policy that says nothing of it is asked for each.
    """

    @property
    def counts(self) -> dict[str, int]:
        """What it has done, and found."""
        ...

    def attach(self, vms: Sequence[LiveVm]) -> None:
        """Learn whose pages there are, before any is looked at."""

    def begin(self) -> None:
        """Begin a reclaim."""

    def end(self) -> None:
        """End it."""

    def scan(self, vm: LiveVm, priority: int, goal: int) -> Found:
        """Look at one page in 2**priority of a VM's; return those to be taken, about `goal` at most."""
        ...

    def age(self, vm: LiveVm) -> Found:
        """Do what is due now and then, whether pages are taken or not."""
        ...

    def keep(self, vm: LiveVm, number: int, *, active: bool) -> None:
        """Put a page that could not be taken on a list again: as one that is in use, or as it was."""

    def evicted(self, memory: Any, numbers: Words, slots: Words) -> None:
        """Learn that pages of a memory have gone to slots: their numbers, and where, int64[n]."""

    def returned(self, memory: Any, numbers: Words, slots: Words) -> None:
        """Learn that pages came back, as pages of these numbers, one after the other, int64[n]."""

    def released(self, slots: Words) -> None:
        """Learn that slots are free, int64[n]."""


class SharingVm(Protocol):
    """A VM, as a policy knows it that says how much of the host's memory each has; in pages of 4 KiB.

    Attributes
    ----------
    owner, shares : int
        The VM, and how much of what is shared out is its.
    size : int
        All memory that its guest has, what is in its balloon included.
    most : int
        The most that may be in its balloon; 0: it has none that the policy may use.
    counts : Counter
        What the policy has done to it, for its figures.
    """

    owner: int
    shares: int
    size: int
    most: int
    counts: Any

    @property
    def memory(self) -> Any:
        """Where its pages lie, and the verbs of its paging mode: a `GuestMemory`."""
        ...

    @property
    def running(self) -> bool:
        """Whether its pages may be taken: it has booted, and not ended."""
        ...

    @property
    def resident(self) -> int:
        """Pages that lie in the host's memory."""
        ...

    @property
    def away(self) -> int:
        """Pages that are on the host's swap device."""
        ...

    @property
    def target(self) -> int:
        """Pages that are to be in its balloon."""
        ...

    @property
    def balloon(self) -> int:
        """Pages that are in it."""
        ...

    @property
    def stuck(self) -> bool:
        """Whether its balloon lacks pages, and has not grown for long: its guest has none, or refuses."""
        ...

    @property
    def statistics(self) -> Any:
        """What its guest has last said of its memory, a `Statistics`; None: nothing yet."""
        ...

    def forget(self, flush: Any, *, times: int) -> int:
        """Have its processors forget; return the cycles that this takes."""
        ...

    def ask(self, pages: int) -> None:
        """Ask for so many pages to be in its balloon, `most` at most."""

    def swap(self, pages: int) -> tuple[int, int]:
        """Take about so many pages to the swap device; return how many, and the cycles of it."""
        ...

    @property
    def blocked(self) -> bool:
        """Whether its vCPUs are kept from running."""
        ...

    def block(self) -> None:
        """Keep its vCPUs from running."""

    def unblock(self) -> None:
        """Let them run."""


class SharedHost(Protocol):
    """The host, as such a policy knows it; in pages of 4 KiB."""

    @property
    def now(self) -> int:
        """The cycle."""
        ...

    @property
    def size(self) -> int:
        """All memory."""
        ...

    @property
    def free(self) -> int:
        """Memory that nobody has."""
        ...

    @property
    def swaps(self) -> bool:
        """Whether pages can be taken to a swap device."""
        ...

    @property
    def merger(self) -> Any:
        """The daemon that has equal pages share a frame, ksmd; None: there is none."""
        ...


class MemoryGovernor(Protocol):
    """How much of the host's memory each VM has."""

    def turn(self, host: SharedHost, vms: Sequence[SharingVm]) -> int:
        """Look at the host, ask VMs for memory or give them some; return the cycles that this took."""
        ...
