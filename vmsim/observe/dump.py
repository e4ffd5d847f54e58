"""Dump a run's page tables. Run directories do not store them, so the run is simulated again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vmsim.base.errors import InputError
from vmsim.observe.table_text import backing_records, table_records, table_text
from vmsim.record.folder import check_folder, replacing_folder, write_manifest

if TYPE_CHECKING:
    from vmsim.base.progress import Progress
    from vmsim.engine.simulation import Simulation
    from vmsim.engine.virtual_machine import VirtualMachine
    from vmsim.record.result import Result

__all__ = ["dump_tables", "tables_of"]

_FORM: Final = "vmsim tables 1"
_NESTED_PRESENT: Final = 0b111  # of EPT entries; those of other formats have bit 0


def dump_tables(run: Result, out: Path, *, force: bool = False, progress: Progress | None = None) -> dict[str, int]:
    """Simulate a run again and write every VM's page tables as they are when it ends, before it gives them back.

    Parameters
    ----------
    run : Result
        Of the run.
    out : Path
        Folder to write to: absent, empty, or with `force` an earlier one. For each process of a VM it gets
        ``VM.PID.guest.txt``, from virtual to guest frames (native: to the host's), and for each VM but native ones
        ``VM.host.txt``, from guest-physical to host frames. `vmsim.observe.table_text` says what is in them.
    force : bool, optional
        Replace an earlier dump.
    progress : callable, optional
        As of `vmsim.engine.run.simulate`.

    Returns
    -------
    dict of str to int
        How many records each file has.

    Raises
    ------
    InputError
        The run cannot be repeated: something that it read has changed, or vmsim has; or `out` cannot be written.
    """
    from vmsim.contracts import Moment
    from vmsim.engine.inputs import input_digests
    from vmsim.engine.simulation import Simulation
    from vmsim.record.directory import provenance
    from vmsim.record.result import Facts

    check_folder(out, force=force)
    _expect_same(input_digests(run.scenario), run.inputs)
    found: dict[str, list[str]] = {}

    def look(what: Moment, host: Simulation, vm: VirtualMachine | None) -> None:
        if what is Moment.VM_FINISHED and vm:
            found.update(tables_of(host, vm))

    simulation = Simulation(run.scenario, observers=[look], progress=progress)
    facts = Facts.of(simulation.run())
    for vm in simulation.vms:
        if vm.finish is None and vm.kernel.processes:  # the simulation stopped before
            found.update(tables_of(simulation, vm))
    if (facts.end, facts.ending) != (run.facts.end, run.facts.ending):
        raise InputError(
            f"the run ended at cycle {run.facts.end}, and this version of vmsim ends it at {facts.end}: its tables "
            "would be others. Run the scenario again, and dump that."
        )
    with replacing_folder(out, force=force) as folder:
        for name, records in found.items():
            (folder / name).write_text(table_text(records), encoding="ascii", newline="\n")
        write_manifest(folder, _FORM, {**provenance(), "scenario": run.scenario.to_toml()})
    return {name: len(records) for name, records in found.items()}


def tables_of(simulation: Simulation, vm: VirtualMachine) -> Iterator[tuple[str, list[str]]]:
    """Yield the name of each file of a VM and its records."""
    memory, nested = simulation.hardware.memory, vm.memory_map
    for pid, process in sorted(vm.kernel.processes.items()):
        records = table_records(memory, process.space.root, vm.spec.guest_levels, nested=nested)
        yield f"{vm.spec.name}.{pid}.guest.txt", list(records)
    (root, levels), last = vm.monitor.memory_root, vm.monitor.host_slot
    if levels:
        yield f"{vm.spec.name}.host.txt", list(table_records(memory, root, levels, present=_NESTED_PRESENT, last=last))
    elif vm.slot:
        yield f"{vm.spec.name}.host.txt", list(backing_records(vm.slot.backing))


def _expect_same(now: Mapping[str, str], then: Mapping[str, str]) -> None:
    for path, digest in then.items():
        if now.get(path) != digest:
            raise InputError(f"{path}: it is not what it was when the run read it, so the run cannot be repeated.")
