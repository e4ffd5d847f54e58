"""The streams of a scenario's VMs, as they are simulated."""

from __future__ import annotations

import numpy as np

from vmsim.base.errors import InputError
from vmsim.machine.formats import PAGE_SHIFT
from vmsim.scenario import Scenario
from vmsim.scenario.levels import PROGRAMS_END, name_of
from vmsim.scenario.vm import Vm
from vmsim.workloads import Stream, open_stream

__all__ = ["PLACEMENT", "check_reach", "seed_of", "stream_of", "streams_of"]

PLACEMENT = 1  # what else is drawn for a VM or the host: which frames are free before the start


def streams_of(scenario: Scenario) -> list[Stream]:
    """Open the workloads of all VMs, in their order."""
    return [stream_of(scenario, vm) for vm in scenario.vms]


def stream_of(scenario: Scenario, vm: Vm, cpus: int = 0) -> Stream:
    """Open the workload of a VM, of at most as many threads as it has vCPUs, or as `cpus` says."""
    return open_stream(
        vm.workload,
        folder=scenario.folder,
        memory=vm.memory,
        seed=seed_of(scenario.seed, vm.index),
        lines=scenario.host.data_caches,
        end=_user_end(vm),
        cpus=cpus or vm.vcpus,
    )


def seed_of(seed: int, index: int, use: int = 0) -> int:
    """Return an independent seed for a use: the workload of VM `index`, and for the host's memory that of MAX_VMS."""
    return int(np.random.SeedSequence([seed, index, use] if use else [seed, index]).generate_state(1, np.uint64)[0])


def _user_end(spec: Vm) -> int:
    """Return the first address that is not user space in a guest."""
    return PROGRAMS_END if spec.guest_levels < 4 else 1 << (9 * spec.guest_levels + 11)


def check_reach(spec: Vm, stream: Stream) -> None:
    """Refuse addresses that a guest's page tables do not reach."""
    starts, lengths = stream.footprint()
    if not len(starts):
        return
    end = _user_end(spec)
    first, last = int(starts.min()), int((starts + lengths).max()) - 1
    if last >= end or first < (0 if spec.guest_levels < 4 else -end):
        wrong = (last & -(1 << PAGE_SHIFT) if last >= end else first) & ((1 << 64) - 1)
        guest = f"a guest of {spec.guest_levels} levels ({name_of(spec.guest_levels)})"
        if spec.guest_levels < 4:
            text = (
                f"{guest} gives its programs the first 3GiB. Expected a trace of a 32-bit program, or guest_levels = 4."
            )
        else:
            text = f"in {guest} that is no canonical address. Expected guest_levels = 5."
        raise InputError(f"VM {spec.name}: its workload touches the address {wrong:#_x}, and {text}")
