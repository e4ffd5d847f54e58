"""A CPU as the simulated machine sees it: geometry in entries and ways, costs in cycles.

Every number comes from a CPU file (`vmsim.scenario.cpu_files`), which says where it was found and how sure
it is; `Cpu.figures` lists them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import AfterValidator, Field, PrivateAttr, model_validator

from vmsim.base.errors import InputError
from vmsim.base.units import TlbPage, format_size
from vmsim.scenario.cpuid import CpuidRegisters
from vmsim.scenario.names import ModeName
from vmsim.scenario.problems import KeyPath, Problem, raise_problems
from vmsim.scenario.replacement import Replacement, unfit
from vmsim.scenario.types import Cycles, Entries, Flag, Frequency, Model, Positive, Size, Ways

__all__ = [
    "CONFIDENCES",
    "Array",
    "Cache",
    "CacheLevel",
    "Cost",
    "Cpu",
    "EntryPwc",
    "Figure",
    "Llc",
    "Memory",
    "Ntlb",
    "PrefixPwc",
    "Pwc",
    "Tlb",
    "TlbArray",
    "TlbLevel",
]

MAX_CACHE: Final = 1 << 30
"""Bytes of a cache."""
CONFIDENCES: Final = ("measured", "manual", "paper", "derived", "guess", "given")
"""From most to least sure, except ``given``: chosen by the user, or by the definition of the preset."""


def _line(text: str) -> str:
    if not text.isprintable():
        raise InputError(f"{text[:60]!r} has characters that cannot be printed; expected one line of text")
    return text


Line = Annotated[str, AfterValidator(_line)]


class Figure(NamedTuple):
    """One number of a CPU: dotted key, value, where it was found, and how sure it is."""

    key: str
    value: int | str | bool | tuple[Any, ...]
    source: str
    confidence: str


class Array(Model):
    """A set-associative array; `ways` equal to `entries` is fully associative, 0 entries is absent."""

    entries: Entries
    ways: Ways
    replacement: Replacement = "lru"

    @property
    def sets(self) -> int:
        """Number of sets, a power of two; 0 if the array is absent."""
        return self.entries // self.ways if self.ways else 0

    @model_validator(mode="after")
    def _check(self) -> Array:
        if getattr(self, "shared", None) is None:
            raise_problems(_geometry(self.entries, self.ways, "entries"))
            raise_problems(unfit(self.replacement, self.ways))
        return self


class TlbArray(Array):
    """The entries for one page size in one TLB level."""

    index: Literal["modulo", "xor"] = Field(
        default="modulo", description="xor: the set is vpn ^ (vpn >> log2(sets)), modulo the sets."
    )
    shared: TlbPage | None = Field(
        default=None, description="This page size lives in the same array as that one, whose entries and ways it has."
    )


class TlbLevel(Model):
    """One level of the data TLB. ``level["2M"]`` is the array for 2 MiB pages, or None if it keeps none."""

    page_4k: TlbArray | None = Field(default=None, alias="4K")
    page_2m: TlbArray | None = Field(default=None, alias="2M")
    page_1g: TlbArray | None = Field(default=None, alias="1G")

    def __getitem__(self, page: TlbPage) -> TlbArray | None:
        array = {"4K": self.page_4k, "2M": self.page_2m, "1G": self.page_1g}[page]
        return array if array is not None and array.entries else None

    @model_validator(mode="before")
    @classmethod
    def _share(cls, level: Any) -> Any:
        """Give an array that lives in another's the geometry of that one."""
        if not isinstance(level, Mapping):
            return level
        filled = dict(level)
        for page, array in level.items():
            if not isinstance(array, Mapping) or "shared" not in array:
                continue
            home = level.get(array["shared"]) if isinstance(array["shared"], str) else None
            if not isinstance(home, Mapping) or "shared" in home or array["shared"] == page:
                text = f"found {array['shared']!r}, expected a page size of this level with an array of its own"
                raise_problems([Problem((page, "shared"), text)])
            elif own := array.keys() - {"shared"}:
                raise_problems([Problem((page, min(own)), f"it lives in the array of {array['shared']}: set that")])
            else:
                filled[page] = {**home, **array}
        return filled


class Tlb(Model):
    """The two levels of the data TLB."""

    l1: TlbLevel
    l2: TlbLevel
    l2_cycles: Cycles = Field(description="Cycles that a hit in the second level costs more than one in the first.")
    tags: Annotated[Positive, Field(le=(1 << 32) - 1)] = Field(
        default=65535, description="VPIDs or ASIDs that a core tells apart, the host's not counted."
    )


class PrefixPwc(Model):
    """Paging-structure caches found by virtual prefix, one per level, as Intel describes them.

    An entry of the `pde` cache skips to the page table, one of `pdpte` to the page directory, and so on. The
    nested ones do the same for the walk of the host dimension.
    """

    style: Literal["prefix"]
    pml5e: Array
    pml4e: Array
    pdpte: Array
    pde: Array
    nested_pml5e: Array
    nested_pml4e: Array
    nested_pdpte: Array
    nested_pde: Array


class EntryPwc(Array):
    """One cache of page-table entries, found by the physical address of the entry, as AMD describes it.

    Entries of the levels below `lowest` are not kept in the guest dimension (a leaf belongs in the TLB), and those
    below `nested_lowest` not in the nested one.
    """

    style: Literal["entry"]
    cycles: Cycles = Field(description="Cycles of a hit.")
    nested: Flag = Field(description="It keeps entries of the nested dimension too.")
    lowest: Literal[1, 2, 3] = Field(description="Lowest level kept of guest or native tables; 1 is the PT.")
    nested_lowest: Literal[1, 2, 3] = Field(description="Lowest level kept of nested tables.")


Pwc = Annotated[PrefixPwc | EntryPwc, Field(discriminator="style")]


class Ntlb(Array):
    """The nested TLB: guest frame to host frame, for the addresses that a guest walk meets."""

    cycles: Cycles = Field(description="Cycles of a hit.")


class CacheLevel(Model):
    """One cache; `slices` equal parts have each a power of two of sets."""

    size: Size
    ways: Annotated[Ways, Field(ge=1)]
    line: Literal[64] = 64
    slices: Annotated[Positive, Field(le=1024)] = 1
    replacement: Replacement = "lru"
    cycles: Cycles = Field(description="Load-to-use cycles of a hit.")

    @property
    def sets(self) -> int:
        """Sets of one slice, a power of two."""
        return self.size // (self.slices * self.ways * self.line)

    @model_validator(mode="after")
    def _check(self) -> CacheLevel:
        if self.size > MAX_CACHE:
            text = f"{format_size(self.size)} is more than the largest cache, {format_size(MAX_CACHE)}"
            raise_problems([Problem(("size",), text)])
        lines, rest = divmod(self.size, self.line * self.slices)
        if rest:
            text = f"{self.size} bytes are not {self.slices} slices of whole {self.line}-byte lines"
            raise_problems([Problem(("size",), text)])
        raise_problems(_geometry(lines, self.ways, "size", "lines of each slice"))
        raise_problems(unfit(self.replacement, self.ways))
        return self


class Llc(CacheLevel):
    """The last-level cache."""

    filled: Literal["misses", "victims"] = Field(
        default="misses",
        description="By what: lines that miss it, as the L2 is; or lines that leave the L2, and a hit leaves it (AMD).",
    )


class Cache(Model):
    """The private caches, the shared one, and where page walks enter them."""

    l1: CacheLevel
    l2: CacheLevel
    llc: Llc
    walker: Literal["l1", "l2"] = Field(description="First level that a page walk's references look in.")

    @model_validator(mode="after")
    def _check(self) -> Cache:
        text = "has no effect: only the LLC is in slices; leave it out"
        raise_problems(
            Problem((name, "slices"), f"found {level.slices}, which {text}")
            for name, level in (("l1", self.l1), ("l2", self.l2))
            if level.slices != 1
        )
        return self


class Memory(Model):
    """DRAM."""

    cycles: Cycles = Field(description="Load-to-use cycles of a load that local DRAM serves.")


class Cost(Model):
    """Cycles of software and of exits."""

    vm_exit: Cycles = Field(description="An exit and the entry after it, hardware only.")
    fault_delivery: Cycles = Field(description="Delivering a page fault to a kernel and returning from it.")
    guest_fault: Cycles = Field(description="A guest kernel's handling of a demand-zero fault, zeroing apart.")
    zero_page: Cycles = Field(description="A kernel clears 4 KiB that its caches have.")
    table_page: Cycles = Field(description="Allocating a page-table page, clearing it apart.")
    copy_page: Cycles = Field(description="Copying 4 KiB, as a write to a page shared by fork makes a kernel do.")
    entry_edit: Cycles = Field(description="A kernel's loading and storing one entry in a scan (mprotect).")
    fork_page: Cycles = Field(description="A kernel's fork: one page's entry copied, and the page counted once more.")
    unmap_page: Cycles = Field(description="A kernel unmaps one page and frees it, the flush apart.")
    process_switch: Cycles = Field(description="A guest kernel goes from one process to another.")
    fork: Cycles = Field(description="A guest kernel's fork, page tables apart.")
    exec: Cycles = Field(description="A guest kernel's execve, page tables and the program's file apart.")
    exit: Cycles = Field(description="A guest kernel's ending of a process and its parent's wait, page tables apart.")
    page_fault_exit: Cycles = Field(description="An exit for a page fault, hardware only, without the entry after it.")
    vm_entry: Cycles = Field(description="An entry into a VM, hardware only.")
    guest_walk_level: Cycles = Field(description="Monitor: find and read one entry of a guest's table.")
    inject: Cycles = Field(description="Monitor: hand a page fault to the guest.")
    decode: Cycles = Field(description="Monitor: fetch and decode the instruction that trapped.")
    emulate: Cycles = Field(description="Monitor: carry it out.")
    step_trap_flag: Cycles = Field(description="Monitor: arm and disarm a single step by the trap flag.")
    step_debug_register: Cycles = Field(description="Monitor: the same by a debug register.")
    map_unmap: Cycles = Field(description="Monitor: map a page for a moment, and unmap and invalidate it again.")
    ad_sync: Cycles = Field(description="Monitor: bring A and D of one guest entry up to date.")
    resync_entry: Cycles = Field(description="Monitor: compare one shadow entry with the guest's.")
    shadow_drop: Cycles = Field(description="Monitor: give up one shadow page.")
    software_tlb_hit: Cycles = Field(description="Monitor: a look-up in its own TLB.")
    vkernel_fault: Cycles = Field(description="Vkernel's host: a page fault, delivered, placed and returned from.")
    vkernel_walk_level: Cycles = Field(description="Vkernel's host: find, read and mark one entry of a guest's table.")
    vkernel_reflect: Cycles = Field(description="Vkernel's host: hand a trap to the guest's kernel, and come back.")
    vkernel_call: Cycles = Field(description="Vkernel's host: a system call on an address space, pages apart.")
    vkernel_remove: Cycles = Field(description="Vkernel's host: take one page out of a map.")
    violation_walk: Cycles = Field(description="Monitor: find the faulting gfn's place, walk the nested tables.")
    violation_pool: Cycles = Field(description="Monitor: take a page from its list of free ones.")
    violation_entry: Cycles = Field(description="Monitor: write the nested entry.")
    violation_rmap: Cycles = Field(description="Monitor: add it to the reverse map.")
    violation_resume: Cycles = Field(description="Monitor: dispatch of the exit and the way back to the guest.")
    host_fault: Cycles = Field(description="Host: a page that is not there, allocated and mapped; cleared apart.")
    host_zero: Cycles = Field(description="Host: clear 4 KiB from memory before a VM gets it.")
    host_zap: Cycles = Field(description="Host: take a page from a VM: its entries, the reverse map, and free it.")
    log_page: Cycles = Field(description="Host: clear a page's dirty flag, or protect the page, when the log is read.")
    log_scan: Cycles = Field(description="Host: look at one entry in search of dirty flags.")
    log_entry: Cycles = Field(description="Monitor: take one entry from the page-modification log.")
    grant_fixed: Cycles = Field(description="Host: one grant of pages to a pool.")
    grant_page: Cycles = Field(description="Host: each page of a grant.")
    reclaim_fixed: Cycles = Field(description="Host: one taking of spare pages from a pool.")
    reclaim_page: Cycles = Field(description="Host: each page taken.")
    age_page: Cycles = Field(
        description="Host, or guest kernel: look at one page in search of accesses, and move it in its list."
    )
    swap_page: Cycles = Field(description="Host: the slot, the swap cache and the request of one page, out or in.")
    file_call: Cycles = Field(description="A kernel's system call on a file, pages apart.")
    file_page: Cycles = Field(description="A kernel finds one page in its page cache, or puts it there.")
    pin_page: Cycles = Field(description="Host: pin a page for a device, or unpin it.")
    message: Cycles = Field(description="A message between monitor and host.")
    context_switch: Cycles = Field(description="A pCPU goes from one vCPU to another.")
    ad_assist: Cycles = Field(description="A walk that sets an accessed or dirty bit, over one that need not.")
    ipi_send: Cycles = Field(description="A kernel asks one more processor for work by an interrupt.")
    ipi_latency: Cycles = Field(description="From then to the first instruction of the interrupt's handler.")
    ipi_handle: Cycles = Field(description="Handler of the interrupt: entry, the work, its end, the sender told.")
    invlpg: Cycles = Field(description="Forgetting one page, or one address space, in such a handler.")
    invlpgb: Cycles = Field(description="A broadcast invalidation, until all processors have made it.")
    balloon_page: Cycles = Field(description="A guest kernel takes a page for its balloon.")
    balloon_message: Cycles = Field(
        description="A message of a balloon's driver: the way to the host's device and back, pages apart."
    )
    balloon_entry: Cycles = Field(description="Host: find the memory behind one entry of such a message.")
    balloon_release: Cycles = Field(description="A guest kernel frees a page of its balloon, with the host's advice.")
    hotplug_message: Cycles = Field(description="A request of a virtio-mem driver: the way to the device and back.")
    hotplug_page: Cycles = Field(description="A guest kernel gives a page that was plugged to its allocator.")
    unplug_page: Cycles = Field(description="A guest kernel isolates a page that is to be unplugged, empty already.")
    bilateral_frame: Cycles = Field(description="Host: change a huge frame's state in a guest's allocator.")
    bilateral_install: Cycles = Field(description="Such a guest asks for memory: to user space and back, but the exit.")
    discard_call: Cycles = Field(description="Host: one call that discards memory (madvise), pages apart.")
    discard_page: Cycles = Field(description="Host: each page that it unmaps and frees in one.")

    @property
    def violation(self) -> int:
        """Cycles of one EPT violation or NPF in the monitor, exit and waiting apart."""
        return (
            self.violation_walk
            + self.violation_pool
            + self.violation_entry
            + self.violation_rmap
            + self.violation_resume
        )

    def zero(self, order: int) -> int:
        """Return the cycles in which a host clears a page of ``2**order`` pages of 4 KiB."""
        return self.host_zero << order


class Cpu(Model):
    """A CPU: what it can do, its arrays and caches, and what things cost on it.

    Attributes
    ----------
    frequency : int
        Hertz of the TSC, the unit of simulated time.
    modes : tuple of str
        Paging modes that it can run.
    levels : tuple of int
        Page-table depths that it can walk, 4 or 5.
    """

    name: Line = Field(min_length=1, max_length=64)
    vendor: Literal["intel", "amd"]
    description: Line = Field(max_length=1000)
    frequency: Frequency
    modes: tuple[ModeName, ...] = Field(min_length=1)
    levels: tuple[Literal[4, 5], ...] = Field(min_length=1)
    cpuid: CpuidRegisters | None = Field(default=None, description="What it says of itself, as mode auto reads it.")
    ept_ad: Flag = Field(description="EPT has accessed and dirty bits. (NPT always has.)")
    walkers: Annotated[Positive, Field(le=1024)] = Field(
        description="Page walks that can be under way at once: for `vmsim validate gups`. Runs make one walk at a time."
    )
    walk_start: Cycles = Field(description="Fixed cycles of a walk, its references apart.")
    interrupts: Literal["exit", "posted", "virtual"] = Field(
        description="Interrupts between vCPUs. exit: the sender and the receiver leave the guest for them. posted: the "
        "sender alone. virtual: neither, while the receiver runs."
    )
    invlpgb: Flag = Field(description="A kernel can have all processors forget pages by an instruction, INVLPGB.")
    tlb: Tlb
    pwc: Pwc
    ntlb: Ntlb
    cache: Cache
    memory: Memory
    cost: Cost
    _figures: tuple[Figure, ...] = PrivateAttr(default=())

    def figures(self) -> Iterator[Figure]:
        """Yield every number with its source and how sure it is."""
        yield from self._figures

    def canonical(self) -> dict[str, Any]:
        """Return what the machine reads, as JSON types: all but the description, CPUID registers and the sources."""
        return dict(self._canonical)

    @cached_property
    def _canonical(self) -> dict[str, Any]:
        return _plain(self, {"description", "cpuid"})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cpu) and self._canonical == other._canonical

    def __hash__(self) -> int:
        return hash((self.name, self.frequency, self.cost))


_ADDED: Final = {"replacement": "lru", "filled": "misses"}
"""Keys that came later, and what was true without them: left out where it is, a CPU is still what it was."""


def _plain(model: Model, without: set[str]) -> dict[str, Any]:
    """Return a table as nested dicts of plain numbers: sizes as bytes, frequencies as hertz."""
    values = {field.alias or name: getattr(model, name) for name, field in type(model).model_fields.items()}
    return {
        key: _plain(value, set()) if isinstance(value, Model) else list(value) if isinstance(value, tuple) else value
        for key, value in values.items()
        if key not in without and (key not in _ADDED or value != _ADDED[key])
    }


def _geometry(entries: int, ways: int, key: str, unit: str = "entries") -> Iterator[Problem]:
    if entries == 0 and ways == 0:
        return
    path: KeyPath = (key,)
    sets, rest = divmod(entries, ways) if ways else (0, 1)
    if not ways or not entries:
        yield Problem(path, f"{entries} {unit} in {ways} ways: both must be at least 1, or both 0 for none")
    elif rest:
        yield Problem(path, f"{entries} {unit} cannot be divided into {ways} ways")
    elif sets & (sets - 1):
        yield Problem(path, f"{entries} {unit} in {ways} ways are {sets} sets; the sets must be a power of two")
