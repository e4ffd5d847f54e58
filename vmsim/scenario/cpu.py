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
from vmsim.base.units import TlbPage
from vmsim.scenario.cost import Cost
from vmsim.scenario.cpu_caches import Cache, CacheLevel, Llc, geometry
from vmsim.scenario.cpuid import CpuidRegisters
from vmsim.scenario.names import ModeName
from vmsim.scenario.problems import Problem, raise_problems
from vmsim.scenario.replacement import Replacement, unfit
from vmsim.scenario.types import Count, Cycles, Entries, Flag, Frequency, Model, Positive, Ways

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

WINDOW: Final = 1024
"""Most instructions of an out-of-order window."""
SERVERS: Final = 64
"""Most page walkers of a core, or lines that its L1 waits for."""
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
            raise_problems(geometry(self.entries, self.ways, "entries"))
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


class Memory(Model):
    """DRAM."""

    cycles: Cycles = Field(description="Load-to-use cycles of a load that local DRAM serves.")


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
    walkers: Annotated[Positive, Field(le=SERVERS)] = Field(
        description="Page walks that can be under way at once, with host.overlap; without it one is."
    )
    window: Annotated[Count, Field(le=WINDOW)] = Field(
        default=0, description="Instructions in its out-of-order window (reorder buffer), for host.overlap; 0: unknown."
    )
    fill_buffers: Annotated[Count, Field(le=SERVERS)] = Field(
        default=0, description="Lines that an L1 data cache can wait for at once, for host.overlap; 0: unknown."
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


_ADDED: Final = {
    "replacement": "lru",
    "filled": "misses",
    "inclusive": False,
    "leaders": None,
    "peer_cycles": None,
    "window": 0,
    "fill_buffers": 0,
    "pairs": False,
}
"""Keys that came later, and what was true without them: left out where it is, a CPU is still what it was."""


def _plain(model: Model, without: set[str]) -> dict[str, Any]:
    """Return a table as nested dicts of plain numbers: sizes as bytes, frequencies as hertz."""
    values = {field.alias or name: getattr(model, name) for name, field in type(model).model_fields.items()}
    return {
        key: _plain(value, set()) if isinstance(value, Model) else list(value) if isinstance(value, tuple) else value
        for key, value in values.items()
        if key not in without and (key not in _ADDED or value != _ADDED[key])
    }
