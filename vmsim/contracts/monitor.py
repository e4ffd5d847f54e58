"""A paging mode at work, and the kernel whose exits it handles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from vmsim.base.clock import Clock
from vmsim.base.ledger import Ledger
from vmsim.contracts.faults import FaultTimes
from vmsim.contracts.memory import Frames
from vmsim.contracts.processor import Mmu, Vcpu
from vmsim.contracts.second import Flush
from vmsim.contracts.steps import Exit, Resume, Steps, Stop, Words
from vmsim.frames.records import State
from vmsim.record.log import Log
from vmsim.record.outcome import DirtyRound

__all__ = ["Handler", "Kernel", "LiveVm", "Monitor", "Worker"]


class Kernel(Protocol):
    """The guest's kernel, or the host's where a program runs on it: what a monitor hands page faults to."""

    current: Any  # the process that runs, by CPU
    times: FaultTimes  # those of its VM

    @property
    def frames(self) -> Frames:
        """Where its frames come from."""
        ...

    @property
    def alone(self) -> bool:
        """Whether it has one CPU, so that none waits for another."""
        ...

    @property
    def processes(self) -> Mapping[int, Any]:
        """By pid."""
        ...

    def root_of(self, cpu: int) -> int:
        """Return the root of the tables of what a CPU runs, by the kernel's numbers; negative before it has booted."""
        ...

    def page_fault(self, vcpu: Any, gva: int, code: int, *, delivered: bool = True) -> Steps[None]:
        """Handle a page fault with its error code."""
        ...

    def fast(self, cpu: int, bill: NDArray[Any]) -> tuple[Any, ...]:
        """Return its state as compiled code works for a CPU with it (contracts/commit.py), a NamedTuple.

        It holds until the kernel has done something. What is done is put on the vCPU's `bill`, BILL[1].
        """
        ...

    def collect(self, vcpu: Any, done: Any) -> None:
        """Count the page faults and system calls that compiled code has `done`, and their cycles."""


class Handler(Protocol):
    """Who handles some of a monitor's exits before it: any number of them in a chain, asked in order."""

    def handle(self, vcpu: Any, exit: Exit) -> Steps[Resume | None]:
        """Handle an exit; None: it is another's."""
        ...


class LiveVm(Protocol):
    """A VM, as those know it who work on it beside its vCPUs.

    Attributes
    ----------
    pages : GuestMemory, NativeMemory or None
        What the host can take from it: pages by guest frame, or of a program on the host itself by frame; None: none.
    spec : Vm
        What the scenario says of it.
    balloon : object
        Its balloon, whose `device` is the host's side; None: it has none.
    virtio_mem : object
        Its virtio-mem, whose `device` is the host's side; None: it has none.
    bilateral : object
        Its allocator as its host shares it, whose `device` is the host's side; None: they share nothing.
    pool : Pool or None
        Where its monitor has pages from.
    ledger : Ledger
        Where what is done to it is counted.
    monitor : Monitor
        Its paging mode.
    """

    pages: Any
    spec: Any
    balloon: Any
    virtio_mem: Any
    bilateral: Any
    pool: Any
    ledger: Any
    monitor: Any

    @property
    def env(self) -> Clock:
        """Simulated time."""
        ...

    @property
    def vcpus(self) -> Sequence[Vcpu]:
        """All its vCPUs."""
        ...

    @property
    def able(self) -> bool:
        """Whether its pages may be taken: it has booted, and not ended."""
        ...

    def forget(self, flush: Flush, by: Vcpu | None = None, *, times: int = 1) -> int:
        """Have its processors forget what a flush says; return the cycles that this takes the host's processor.

        `times` says in how many pieces, one after the other: the vCPUs leave the guest for each.
        """
        ...

    @property
    def alive(self) -> bool:
        """Whether it has not ended, and nobody has said that it is to."""
        ...

    @property
    def gone(self) -> bool:
        """Whether it has ended, and given everything back."""
        ...

    def kill(self, why: Stop = Stop.KILLED, who: str = "") -> None:
        """Have it end, because the host has run out of memory; `who` says why it is this one."""


class Worker(Protocol):
    """Who does something for a VM now and then on a core of the host's, beside its exits.

    KVM has a thread for each VM that recovers large pages (arch/x86/kvm/mmu/mmu.c, kvm_nx_huge_page_recovery_worker);
    its dirty log is read by a thread of the process that runs the VM.
    """

    def run(self, vm: LiveVm) -> Steps[None]:
        """Work from now on, when the VM has booted, until it ends; wait by `Clock.background` alone."""
        ...


class Monitor(Protocol):
    """One paging mode at work for one VM: it handles every exit, those of a program on the host itself included.

    Attributes
    ----------
    exits, exit_cycles : Counter
        By reason.
    latency : FaultTimes
        How many faults took how many cycles.
    deliver : callable
        The kernel's handler of page faults: a vCPU, a gva and an error code.
    pins_pages : bool
        The host pins the pages of a buffer while a device works on it.
    nested_rights : bool
        The hardware walks the nested tables, so that no TLB may keep a right that they do not give.
    compiled : bool
        Compiled code may handle exits for which nothing has to wait.
    reloads : bool
        What one vCPU does may make another look for its root anew before it goes on.
    table_order : int
        A table that the host has made lies in 2**table_order frames, which stay side by side.
    names_entries : bool
        The reverse map names the entries that lead to such tables.
    """

    exits: Counter[str]
    exit_cycles: Counter[str]
    latency: FaultTimes
    deliver: Callable[[Any, int, int], Steps[None]]
    pins_pages: bool
    nested_rights: bool
    compiled: bool
    reloads: bool
    table_order: int
    names_entries: bool

    def guest_mmu(self, hardware: Mmu) -> Mmu:
        """Return how the guest's kernel reaches its tables, by the `hardware`'s MMU or in its place."""
        ...

    def plain_mmu(self, hardware: Mmu) -> Mmu:
        """Return the same where each of the kernel's accesses has been translated before, and so tells of itself."""
        ...

    def attach(self, kernel: Kernel) -> None:
        """Learn whose page faults it handles."""

    def prepare(self, take: Callable[[int, State], list[int]]) -> None:
        """Back all guest memory before the clock starts, with frames that `take` gives: how many, in which state.

        Raises
        ------
        VmStopped
            The host's memory does not suffice.
        """

    def forget(self) -> None:
        """Forget the exits so far, where they were made before the clock started."""

    def create(self, vcpu: Any) -> Steps[None]:
        """Take from the pool what no guest can start without."""
        ...

    def begin(self, vcpu: Any) -> Steps[None]:
        """Begin what it does besides exits: the VM's kernel has booted."""
        ...

    def finish(self, vcpu: Any) -> None:
        """End that: the VM's workload is over."""

    def touch(self, vcpu: Any, gfn: int, order: int) -> Steps[None]:
        """Write to 2**order guest frames: whichever lacks a host frame exits and gets one."""
        ...

    def back_one(self, vcpu: Any, gfn: int) -> Steps[int]:
        """Back a guest frame, to be written to, in an exit that another counts; return the cycles of that."""
        ...

    def handle(self, vcpu: Any, exit: Exit) -> Steps[Resume]:
        """Handle an exit: the one call by which a vCPU reaches its monitor."""
        ...

    def pauses(self, accesses: int) -> list[tuple[int, Callable[[Any], Steps[None]]]]:
        """Return what it does after how many accesses of a workload that makes so many."""
        ...

    def kernel_fault(self, vcpu: Any, gva: int, gfn: int, code: int, write: bool) -> Steps[bool]:
        """Handle a fault of the kernel's own map of its memory, in tables that the guest does not know.

        Returns
        -------
        bool
            Whether the access has been made.
        """
        ...

    def held_by_host(self, at: int, cycles: int, times: int, apart: int) -> int:
        """Have the host change its entries from a cycle on: so many times, for so many cycles each and as many apart.

        Returns
        -------
        int
            Cycles that the host waits until nobody else changes them.
        """
        ...

    def system_call(self, vcpu: Any, name: str, pid: int) -> None:
        """Pay for what a system call of a process costs beside the kernel's own work; `name` is as of `Op`."""

    def io_exit(self, vcpu: Any) -> None:
        """Leave the guest because its kernel has told a device to work."""

    def frames_of(self, gfns: Words) -> Words:
        """Return the host's frames that hold guest frames, int64[n]; each must be backed."""
        ...

    def fast(self, vcpu: Any) -> tuple[Any, ...] | None:
        """Return its state as compiled code handles exits of a vCPU with it, a NamedTuple; None: it handles none.

        See contracts/commit.py. It holds until somebody else has run.
        """
        ...

    def brought(self) -> None:
        """Have the host note what a run of compiled code has brought back from its swap cache."""

    def collect(self, vcpu: Any, done: Any) -> None:
        """Count the exits that compiled code has handled, as it was `collected` from the vCPU's bill."""

    @property
    def workers(self) -> Sequence[Worker]:
        """Who has something to do now and then, each in a process of its own."""
        ...

    @property
    def rounds(self) -> Log[DirtyRound]:
        """Readings of its dirty log."""
        ...

    def register(self, ledger: Ledger) -> None:
        """Say what it counts: its exits, their cycles, how long faults took, and whatever else."""

    def rehearse(self) -> None:
        """Compile, or load from the cache, the kernels that a short run does not need."""

    def walked_root(self, cpu: int) -> int:
        """Return the root by which a vCPU finds the gpa, or hpa, of a gva; negative before its kernel has booted."""
        ...

    @property
    def backing(self) -> Words:
        """Where guest memory lies (tables/backing.py); empty if gpas are hpas."""
        ...

    @property
    def memory_root(self) -> tuple[int, int]:
        """Root (hpa) and levels of the tables from gpa to hpa, for --check and dumps; (0, 0) if there are none.

        Then what is in `backing` is all there is.
        """
        ...

    @property
    def host_slot(self) -> int | None:
        """Entry of the root of the nested tables from which on they are the host kernel's; None if all are the VM's."""
        ...

    @property
    def frames_held(self) -> int:
        """Host frames that are its own tables, or at hand for it, and that no entry of `memory_root`'s tables maps."""
        ...

    @property
    def late_flags(self) -> bool:
        """Whether dirty flags come to the guest's own entries only when they are asked for."""
        ...

    def table_moved(self, old: int, new: int) -> None:
        """Learn that a table of the host's own, by its frame, lies in another; entries lead there already."""

    def stale(self, cpu: int) -> bool:
        """Whether the guest has taken away what a vCPU's TLB may still hold, and has not invalidated it yet."""
        ...

    def may_enter(self, vcpu: Any) -> bool:
        """Whether a vCPU may enter the guest; asked before each run where it `reloads`."""
        ...

    def reload(self, vcpu: Any) -> Steps[None]:
        """Make it ready."""
        ...

    def problems(self, frames: NDArray[Any]) -> Iterable[str]:
        """Yield what is wrong with its own tables, for `--check`; `frames` are the host's records."""
        ...

    def table_on_way(self, table: int, level: int, wanted: int, gva: int) -> int:
        """Return the hpa of the table of level `wanted` on the way to `gva` from the one that CR3 names, or UNBACKED.

        `table` is what CR3 holds, and `level` that table's.
        """
        ...
