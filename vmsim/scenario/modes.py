"""What a paging mode is to a scenario: `PagingMode`, and the modes that are registered.

A mode's class says which keys of a ``[[vm]]`` table mean something in it, which tables it brings, what it refuses and
why, which CPUs have it, and what of it decides results. `PagingMode.build` names what makes its monitor, which is
imported when a VM is built: nothing here needs compiled code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, ClassVar, Literal

from vmsim import plugins
from vmsim.base.errors import listed
from vmsim.base.units import Duration
from vmsim.scenario.cpu import Cpu
from vmsim.scenario.cpuid import Features
from vmsim.scenario.keys import VmKeys
from vmsim.scenario.problems import KeyPath, Problem
from vmsim.scenario.types import Model

__all__ = ["ModeTable", "PagingMode", "hardware_modes", "mode_named", "mode_names", "paging_modes"]

_ANYWAY = "host.what_if = true allows it anyway"
_OWNERS = {"intel": ("an Intel", "Intel"), "amd": ("an AMD", "AMD")}


class ModeTable(Model):
    """A table that a paging mode brings, such as ``[vm.shadow]``. Every key has a default.

    Attributes
    ----------
    about : str
        What the JSON Schema says of it: a sentence.
    """

    about: ClassVar[str] = ""

    def changed(self) -> Iterator[str]:
        """Yield the keys whose values are not the defaults."""
        for key, field in type(self).model_fields.items():
            if getattr(self, key) != field.get_default(call_default_factory=True):
                yield key


class PagingMode:
    """How the addresses of a VM are translated, as far as a scenario is concerned. Subclass it to add a mode.

    Attributes
    ----------
    name : str
        As in ``mode = "…"``; the name of its entry point.
    label : str
        What figures call it.
    needs : tuple of str
        Hardware modes of which a CPU must have one; empty: every CPU runs it.
    hardware : bool
        It is a mode of the processor, which the `modes` of a CPU file list.
    vendor : {"intel", "amd"} or None
        Whose CPUs have it.
    tables : mapping of str to class
        The tables that it brings into ``[[vm]]``, by key: subclasses of `ModeTable`.
    reads : tuple of key paths
        Keys of other modes' tables that mean something in it too: ``(("shadow", "limit"),)``.
    ignores : frozenset of str
        Keys of every ``[[vm]]`` that do nothing in it.
    refuses : tuple of str
        Keys that `problems` refuses in it; they go back to their defaults when the mode is chosen.
    guest_levels, host_levels : tuple of int
        Depths of guests' and of nested tables that it can have; none: it has no nested tables.
    own_format : bool
        What stands for a guest's tables has their format, so that under 32-bit paging it reaches 4 GiB of the host.
    features : frozenset of str
        Of "dirty_log" and "nx_split", what goes with it.
    whole_by_guest : bool
        Its entries map large pages where the guest's do, and not where only the host's are large.
    unrun : mapping of int to str
        Why guests of some depths cannot run in it, by their levels; of other depths there is nothing to say.
    unlogged : str
        Why nobody keeps a dirty log in it.
    tagged : bool
        It has VM entries and exits, over which tags (VPID, ASID) keep TLB entries apart.
    pcid : bool
        What its kernel does with PCIDs where the scenario does not say.
    pdpte_registers : bool
        The processor keeps the PDPTEs of a PAE guest in registers (Intel SDM vol. 3A §5.4.1, vol. 3C §28.3.1), and does
        not read them from memory at each walk (APM vol. 2 §15.25).
    costs : str
        What the names of the costs begin with that no other mode has; empty: it has none of its own.
    automatic : bool
        ``mode = "auto"`` may stand for it (`suits`).
    apart : {"pcid", "tag"}
        What keeps the address spaces of a guest apart in the TLB: PCIDs that its kernel loads, or a tag of the
        monitor's for each, where the kernel's loads of CR3 are not the processor's.
    spaces : int
        Address spaces that its kernel tells apart; 0: as many as Linux does.
    build : str
        Dotted name of what makes the monitor of a VM: ``package.module:function``, called with a
        `vmsim.monitor.parts.VmParts`.
    rehearsal : mapping or None
        Keys of a small VM, besides its mode, whose run compiles the code that no other mode has (`vmsim.engine.warm`);
        None: it has none.
    """

    name: ClassVar[str]
    label: ClassVar[str] = ""
    needs: ClassVar[tuple[str, ...]] = ()
    hardware: ClassVar[bool] = False
    vendor: ClassVar[Literal["intel", "amd"] | None] = None
    tables: ClassVar[Mapping[str, type[ModeTable]]] = {}
    reads: ClassVar[tuple[tuple[str, ...], ...]] = ()
    ignores: ClassVar[frozenset[str]] = frozenset()
    refuses: ClassVar[tuple[str, ...]] = ()
    guest_levels: ClassVar[tuple[int, ...]] = (4, 5)
    host_levels: ClassVar[tuple[int, ...]] = (4, 5)
    own_format: ClassVar[bool] = False
    features: ClassVar[frozenset[str]] = frozenset()
    whole_by_guest: ClassVar[bool] = False
    unrun: ClassVar[Mapping[int, str]] = {}
    unlogged: ClassVar[str] = ""
    tagged: ClassVar[bool] = True
    pcid: ClassVar[bool] = True
    pdpte_registers: ClassVar[bool] = True
    costs: ClassVar[str] = ""
    automatic: ClassVar[bool] = False
    apart: ClassVar[Literal["pcid", "tag"]] = "pcid"
    spaces: ClassVar[int] = 0
    build: ClassVar[str] = ""
    rehearsal: ClassVar[Mapping[str, Any] | None] = None

    def bare(self, vm: VmKeys) -> bool:
        """Return whether no guest runs in a VM from the start: it is a program on the host itself."""
        return False

    def bare_name(self, vm: VmKeys) -> str:
        """Return what a VM in which no guest runs is called."""
        return f"mode {self.name}"

    def becomes_guest(self, vm: VmKeys) -> bool:
        """Return whether it is a process that becomes a VM while it runs."""
        return False

    def by_ept(self, cpu: Cpu) -> bool:
        """Return whether its nested tables have the format of EPT."""
        return False

    def walked_levels(self, guest_levels: int) -> int:
        """Return how deep the tables are that the processor walks for a guest whose own have so many levels."""
        return guest_levels

    def uses(self, path: KeyPath) -> bool:
        """Return whether a key of a ``[[vm]]`` table means something in it."""
        if path[0] in self.tables or any(path[: len(read)] == read for read in self.reads):
            return True
        return path[0] not in self.ignores and not any(path[0] in mode.tables for mode in paging_modes().values())

    def problems(self, vm: VmKeys) -> Iterator[Problem]:
        """Yield what cannot be in it, whatever the CPU, by keys of the VM's table."""
        yield from ()

    def kernel_problems(self, vm: VmKeys) -> Iterator[Problem]:
        """Yield why the guest kernel's accesses (`kernel_accesses`) cannot be translated, also where auto chose it."""
        yield from ()

    def times(self, vm: VmKeys) -> Mapping[tuple[str, ...], Duration]:
        """Return times of its tables that must be at least a cycle."""
        return {}

    def runs_on(self, cpu: Cpu) -> bool:
        """Return whether a CPU has what it needs."""
        return not self.needs or bool({*self.needs} & {*cpu.modes})

    def problems_on(self, vm: VmKeys, cpu: Cpu, *, pages_1g: bool) -> Iterator[Problem]:
        """Yield what a CPU lacks for it, by keys of the VM's table.

        Parameters
        ----------
        vm : VmKeys
            The table.
        cpu : Cpu
        pages_1g : bool
            A page table of this CPU may map pages of 1 GiB.
        """
        if self.runs_on(cpu):
            return
        if self.hardware:
            owner = _OWNERS[self.vendor][1] if self.vendor else "none"
            text = (
                f"mode {self.name} belongs to {owner} CPUs and {cpu.name} is {_OWNERS[cpu.vendor][0]} CPU; it has "
                f"{', '.join(cpu.modes)}. {_ANYWAY}"
            )
        else:
            names = {"ept": "EPT", "npt": "nested paging"}
            needs = " or ".join(names.get(need, f"mode {need}") for need in self.needs)
            text = f"mode {self.name} needs {needs}, which {cpu.name} does not have; {_ANYWAY}"
        yield Problem(("mode",), text)

    def suits(self, has: Features | None, cpu: str, listed: tuple[str, ...]) -> str | None:
        """Return why ``mode = "auto"`` may stand for it on a CPU, None if it may not.

        The first registered mode that gives a reason is taken.

        Parameters
        ----------
        has : Features or None
            What CPUID says; None: the CPU's file does not give it.
        cpu : str
            Its name.
        listed : tuple of str
            The modes that its file lists.
        """
        return None

    def offered(self, has: Features) -> bool:
        """Return whether a processor with these features has it; asked of hardware modes."""
        return False

    def refusal(self, feature: str) -> str | None:
        """Return why a feature does not go with it, None if it does."""
        if feature in self.features:
            return None
        if feature == "dirty_log":
            having = listed(mode.name for mode in paging_modes().values() if "dirty_log" in mode.features)
            why = f": {self.unlogged}" if self.unlogged else ""
            return f"a dirty log is kept in modes {having}; mode {self.name} has none{why}"
        if feature == "nx_split":
            text = "KVM keeps large pages of its own tables from execution (arch/x86/kvm/mmu/spte.c, make_spte)"
            return f"{text}, and mode {self.name} has none"
        return f"mode {self.name} has no {feature}"

    def log_problems(self, vm: VmKeys) -> Iterator[Problem]:
        """Yield why no dirty log can be kept as its table says, also where auto chose the mode."""
        if vm.dirty_log.method != "none" and (why := self.refusal("dirty_log")):
            yield Problem(("dirty_log", "method"), why)

    def entries(self, *, bare: bool) -> int:
        """Return how many entries of page tables stand for a page of a VM's memory, at most."""
        return 1 if bare else 2

    def frame_records(self, own: Any) -> int:
        """Return the bytes of this machine's memory that it keeps besides for each frame of the host."""
        return 0

    def records(self, own: Any, pages: int) -> int:
        """Return the bytes of this machine's memory that its monitor keeps besides, of a VM that uses `pages`."""
        return 0

    def settings(self, vm: VmKeys, cpu: Cpu) -> Any:
        """Return what its monitor is told of its tables, with nothing left to look up: `Vm.own`."""
        tables = [vm.table(kind) for kind in self.tables.values()]
        return tables[0] if len(tables) == 1 else tuple(tables)

    def canonical(self, own: Any) -> dict[str, Any]:
        """Return what of its settings decides results, by key: as JSON types, or models of them."""
        tables = own if isinstance(own, tuple) else (own,)
        return {key: table.model_dump(exclude_none=True) for key, table in zip(self.tables, tables, strict=True)}


def _wrong(plugin: plugins.Plugin, mode: Any) -> str | None:
    """Return what is wrong with a registered mode."""
    if not isinstance(mode, PagingMode):
        return f"it is {type(mode).__name__}, expected an instance of a subclass of vmsim.scenario.modes.PagingMode"
    if getattr(mode, "name", None) != plugin.name:
        return f"it calls itself {getattr(mode, 'name', None)!r}"
    if not plugin.foreign:
        return None
    for key, table in mode.tables.items():
        if key != mode.name or key in VmKeys.model_fields:
            return f"its table is {key!r}; expected one named for the mode, and no other key of [[vm]]"
        if not (isinstance(table, type) and issubclass(table, ModeTable)):
            return f"its table {key!r} is no subclass of vmsim.scenario.modes.ModeTable"
        if any(field.is_required() for field in table.model_fields.values()):
            return f"a key of its table {key!r} has no default"
    return None


plugins.add_check("modes", _wrong)


@cache
def paging_modes() -> Mapping[str, PagingMode]:
    """Return the registered modes that can be used, by name: vmsim's own first."""
    return plugins.loaded("modes")


def mode_names() -> tuple[str, ...]:
    """Return the names of the registered modes."""
    return tuple(paging_modes())


def hardware_modes() -> tuple[str, ...]:
    """Return the names of the modes that a CPU supports, or does not support."""
    return tuple(name for name, mode in paging_modes().items() if mode.hardware)


def mode_named(name: str) -> PagingMode:
    """Return a mode by its name.

    Raises
    ------
    InputError
        There is none, or its package is broken.
    """
    mode: PagingMode = plugins.load("modes", name)
    return mode
