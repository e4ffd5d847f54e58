"""What a VM runs that does more than access memory: it maps and unmaps, forks, or reads from devices and files.

As `vmsim.scenario.workload`, which has the other kinds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final, Literal

from pydantic import Field, Strict

from vmsim.base.units import PAGE_BYTES, format_size, parse_duration
from vmsim.scenario.problems import Problem
from vmsim.scenario.types import Accesses, DurationField, Flag, Fraction01, Processes, Rounds, Size, Work
from vmsim.scenario.workload import Generator, OfAccesses

__all__ = ["Churn", "Compile", "Disk", "Files", "ForkWait", "StandIn", "Switcher"]

_PROCESSES: Final = "its processes run one after the other"


class Churn(Generator):
    """A process that maps, uses and unmaps blocks of memory, any of a region's, round after round."""

    stream = "vmsim.workloads.kinds:churn"
    lasts = "rounds"
    one_thread = ""
    parts = ("burst",)
    touches = ("burst",)
    one_region = True

    kind: Literal["churn"]
    rounds: Rounds = Field(default=1000, description="Blocks mapped in all; each of their pages is written once.")
    burst: Size = Field(default=256 << 10, description="Size of a block.")
    kept: Annotated[float, Field(gt=0, le=1, strict=True)] = Field(
        default=0.5, description="Share of the region's blocks that stay mapped; one is unmapped for each mapped then."
    )
    work: Work = Field(default=0, description="Accesses between two rounds, to any word that is mapped.")
    writes: Fraction01 = Field(default=0.0, description="Share of those that write.")
    filled: Flag = Field(
        default=False, description="What stays mapped is mapped and written before the first round; all are alike then."
    )

    within_footprint = ("burst",)
    whole_pages = ("burst", "footprint")


class ForkWait(Generator):
    """A process that forks children, one after the other, and waits for each to exit."""

    stream = "vmsim.workloads.kinds:forkwait"
    lasts = "forks"
    one_thread = _PROCESSES
    touches = ("child", "parent")

    kind: Literal["forkwait"]
    footprint: Size = Field(default=256 << 10, description="What the parent has written before it forks.")
    forks: Rounds = Field(default=40_000, description="Children in all.")
    child: Size = Field(default=16 << 10, description="What each child writes, a word in each page, before it exits.")
    parent: Size = Field(default=16 << 10, description="What the parent writes after each child.")

    within_footprint = ("child", "parent")
    whole_pages = ("child", "parent", "footprint")


class Compile(Generator):
    """A process that runs many short programs: fork, exec, map, touch, exit."""

    stream = "vmsim.workloads.kinds:compile"
    lasts = "processes"
    one_thread = _PROCESSES
    touches = ("footprint", "text")

    kind: Literal["compile"]
    footprint: Size = Field(default=4 << 20, description="Memory that each program maps and writes.")
    processes: Rounds = Field(default=20, description="Programs in all, one after the other.")
    text: Size = Field(default=1 << 20, description="Memory that each program maps and fetches from.")
    parent: Size = Field(default=1 << 20, description="What the process that forks has written before.")
    work: Work = Field(default=0, description="Accesses of each program to any word of its footprint.")
    writes: Fraction01 = Field(default=0.0, description="Share of those that write.")

    within_footprint = ()
    within_memory = ("footprint", "text", "parent")
    whole_pages = ("text", "parent", "footprint")


class Disk(Generator):
    """A process that reads blocks from a device, one after the other, and works on each."""

    stream = "vmsim.workloads.kinds:disk"
    lasts = "reads"
    one_thread = ""
    parts = ("block",)
    touches = ("block",)
    one_region = True

    kind: Literal["disk"]
    reads: Rounds = Field(default=1000, description="Blocks read in all; each of their pages is then read once.")
    block: Size = Field(default=64 << 10, description="Size of a block; the region is buffers of that size.")
    device: DurationField = Field(
        default=parse_duration("100us"),
        description="What the device takes for a block.",
        json_schema_extra={"default": "100us"},
    )
    work: Work = Field(default=0, description="Accesses to any word of a block after it was read.")
    writes: Fraction01 = Field(default=0.0, description="Share of those that write.")

    within_footprint = ("block",)
    whole_pages = ("block", "footprint")

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with keys that are each valid alone."""
        yield from super().problems()
        if self.device.unit == "cycles":
            yield Problem(("device",), f'found {self.device}, expected a time of its own, not of the CPU: "100us"')


class Files(Generator):
    """A program that reads and writes a file by system calls, block by block, and works on what it has read."""

    stream = "vmsim.workloads.kinds:read_files"
    lasts = "operations"
    one_thread = ""
    parts = ("block",)
    touches = ("block",)
    one_region = True

    kind: Literal["files"]
    data: Size = Field(default=64 << 20, description="Size of the file; it need not fit the VM's memory.")
    operations: Rounds = Field(default=1000, description="Blocks read or written in all.")
    block: Size = Field(default=16 << 10, description="Size of a block; the first of the region are the buffers.")
    order: Literal["sequential", "random"] = Field(
        default="sequential", description="sequential: one block after the other, from the start again. random: any."
    )
    exponent: float = Field(
        default=0.0, ge=0, le=8, strict=True, description="random: as of zipf; 0: each block is equally likely."
    )
    written: Fraction01 = Field(default=0.0, description="Share of the operations that write a block.")
    synced: Work = Field(
        default=0, description="Operations after each of which the program waits for the disk; 0: never."
    )
    drop: Flag = Field(default=False, description="The program says that it wants a block no more when it is done.")
    work: Work = Field(default=0, description="Accesses to any word of the region after each operation.")
    writes: Fraction01 = Field(default=0.0, description="Share of those that write.")

    within_footprint = ("block",)
    whole_pages = ("block", "footprint", "data")

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with keys that are each valid alone."""
        yield from super().problems()
        if self.block > self.data:
            yield Problem(("block",), f"block > data ({format_size(self.block)} > {format_size(self.data)})")
        if self.exponent and self.order != "random":
            yield Problem(("exponent",), 'it has no effect with order = "sequential"; leave it out')


class Switcher(OfAccesses):
    """Processes that run in turn, each with uniform accesses to a footprint of its own."""

    stream = "vmsim.workloads.kinds:switcher"
    one_thread = _PROCESSES

    kind: Literal["switcher"]
    spaces: Processes = Field(default=2, description="Processes; each needs memory for its footprint.")
    every: Accesses = Field(default=10_000, description="Accesses between two switches.")


_Exponent = Annotated[float, Field(ge=0, le=8, strict=True)]


class StandIn(OfAccesses):
    """A stream that stands for a program: visits to pages by regions of 2 MiB, and edits of its page tables."""

    stream = "vmsim.workloads.kinds:standing_in"
    one_region = True

    kind: Literal["stand-in"]
    region_exponent: _Exponent = Field(
        default=1.0, description="Of Zipf's law by which a region of 2 MiB is chosen; 0: any is as likely."
    )
    page_exponent: _Exponent = Field(default=0.0, description="The same of a page of the region.")
    reuse: Fraction01 = Field(default=0.0, description="Share of the visits that go to a page visited lately instead.")
    recent: Annotated[int, Strict(), Field(ge=1, le=1 << 24)] = Field(
        default=256, description="How far back such a page was visited at most, in visits; any of them."
    )
    lines: Annotated[int, Strict(), Field(ge=1, le=64)] = Field(
        default=4, description="Accesses of a visit, to cache lines that follow one another."
    )
    large: Fraction01 = Field(
        default=0.0, description="Share of the regions for which huge pages are wanted (madvise), as of vm.thp.enabled."
    )
    edits: Annotated[float, Field(ge=0, le=1_000_000, strict=True)] = Field(
        default=0.0, description="Edits of its page tables in a million accesses."
    )
    edit: Literal["map", "protect", "discard"] = Field(
        default="map",
        description="What one does to a block. map: unmaps it and maps it again. protect: takes the right to write and "
        "gives it back. discard: frees its pages.",
    )
    block: Size = Field(default=64 << 10, description="Size of such a block.")

    within_footprint = ("block",)
    whole_pages = ("block", "footprint")

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with keys that are each valid alone."""
        yield from super().problems()
        for key in ("footprint", "base"):
            if getattr(self, key) % PAGE_BYTES["2M"]:
                text = f"found {format_size(getattr(self, key))}, expected a multiple of 2MiB: regions are so large"
                yield Problem((key,), text)
