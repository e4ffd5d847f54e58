"""What a user is told of a VM that ends before its workload does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from numpy.typing import NDArray

from vmsim.base.units import PAGE, format_size
from vmsim.contracts import Stop, VmStopped
from vmsim.machine.layout import Count
from vmsim.record.outcome import Ending
from vmsim.scenario import Vm
from vmsim.workloads import Stream

__all__ = ["ending_of", "together"]


class _Machine(Protocol):
    """The VM, as far as its end needs it."""

    spec: Vm
    stream: Stream
    registers: NDArray[Any]

    @property
    def now(self) -> int: ...


def ending_of(vm: _Machine, stop: VmStopped) -> Ending:
    """Return what ends a VM now, or where the host cannot back it the simulation."""
    made = f"after {int(vm.registers['counters'][:, Count.ACCESSES].sum())} of {vm.stream.accesses} accesses"
    name, size, page = vm.spec.name, format_size(vm.spec.memory), vm.spec.guest_page
    if stop.what is Stop.OUT_OF_MEMORY:
        asked = f"a guest page of {page}"
        message = (
            f"VM {name} ran out of its own memory ({size}) {made}: its kernel asked for a page of {page} and had none. "
            f"Give it more memory, or a smaller workload."
        )
    elif stop.what is Stop.KILLED:
        asked = "the host's memory"
        message = (
            f"The host has ended VM {name} ({size}) {made}: it was out of memory, with nothing more to take, and "
            f"{stop.who}. Give it more memory, a larger swap device, or fewer VMs."
        )
    elif stop.what is Stop.LIMIT:
        asked, most = "a page beyond its limit", format_size(vm.spec.memory_max * PAGE)
        message = (
            f"VM {name} ({size}) was ended {made}: it needs more than its host lets it have (vm.memory_max = {most}), "
            f"and nothing of it could be taken. Raise the limit, or give the host a swap device (host.swap)."
        )
    elif stop.what is Stop.SWAP_READ:
        asked = "a page on the swap device"
        message = (
            f"VM {name} ended {made}: a page of it that the host had swapped out could not be read from the device "
            f"(host.swap.read_errors)."
        )
    else:
        asked, why = f"a guest-physical address, {stop.address:#x}", "its page tables lead there"
        if stop.what is Stop.RESERVED_BIT:
            asked, why = f"a virtual address, {stop.address:#x}", "an entry for it has a reserved bit"
        elif stop.what is Stop.KERNEL_HALF:
            asked, why = f"a virtual address, {stop.address:#x}", "it is in the kernel's half"
        ended = "the monitor has stopped it" if stop.who == "the monitor" else f"{stop.who} has stopped"
        message = (
            f"VM {name} accessed memory that it does not have {made}: {asked}, where it has {size} from 0 on and no "
            f"devices; {why}, and {ended}."
        )
    return Ending(vm.now, name, asked, message)


def together(of_vms: Sequence[Ending | None], of_host: Ending | None = None) -> Ending | None:
    """Return what a user is told of a run, some VMs of which have ended early, and it itself; None: none has."""
    found = [each for each in (of_host, *of_vms) if each]
    if not found:
        return None
    return replace(found[0], message=" ".join(dict.fromkeys(each.message for each in found)))
