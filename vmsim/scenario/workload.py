"""What a VM runs: one class for each kind of workload.

A class holds the keys of ``[vm.workload]``; `Workload.stream` names what makes the stream of accesses of them, which is
imported when it is opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Final, Literal, get_args

from pydantic import Field, model_validator

from vmsim import plugins
from vmsim.base.formats import TraceFormat
from vmsim.base.units import PAGE, format_size, parse_duration
from vmsim.scenario.problems import Problem, raise_problems
from vmsim.scenario.types import (
    Accesses,
    Address,
    Cycles,
    DurationField,
    Flag,
    Fraction01,
    Model,
    Processes,
    Rounds,
    Size,
    Threads,
    Work,
)

__all__ = [
    "Chase",
    "Churn",
    "Compile",
    "Files",
    "ForkWait",
    "Generator",
    "Gups",
    "Sequential",
    "Switcher",
    "Trace",
    "Uniform",
    "WorkingSet",
    "Workload",
    "Zipf",
]


TURN: Final = 100_000
_PROCESSES: Final = "its processes run one after the other"


class Workload(Model):
    """A kind of workload: the keys of its table. Subclass it, or `Generator`, to add a kind.

    Attributes
    ----------
    kind : str
        In a subclass a ``Literal`` of one text: as in ``kind = "…"``, the name of its entry point.
    stream : str
        Dotted name of what makes its stream: ``package.module:function``, called with the table and
        `vmsim.workloads.Place`; returns a `vmsim.workloads.Stream`.
    one_region : bool
        All that it touches is in one region of `footprint` bytes, so that this is all the memory that it needs.
    lasts : str
        The key that says how long it goes on, by which long points of a sweep come first; empty: no key does.
    touches : tuple of str
        Keys of the sizes that it touches in each of those turns; none: a turn is an access.
    """

    kind: str
    compute: Cycles = Field(default=1, description="Cycles of other work with each access.")
    turn: Accesses = Field(
        default=TURN,
        description="Accesses that a thread makes before the next has its turn, where there are more than CPUs.",
    )

    stream: ClassVar[str]
    one_region: ClassVar[bool] = False
    lasts: ClassVar[str] = ""
    touches: ClassVar[tuple[str, ...]] = ()

    def files(self) -> dict[str, str]:
        """Return the files that it reads, by key, as paths relative to the scenario's folder."""
        return {}


class Trace(Workload):
    """A recorded memory trace, replayed."""

    kind: Literal["trace"]
    path: str = Field(
        min_length=1,
        description="The trace: relative to the scenario's folder, the name of a bundled one, or URL#sha256=DIGEST.",
    )
    repeat: Rounds = Field(default=1, description="Times the trace is replayed from its beginning.")
    format: Literal["auto", TraceFormat] = Field(default="auto", description="Layout of the file; auto recognises it.")

    stream = "vmsim.workloads.kinds:trace"
    lasts = "repeat"

    def files(self) -> dict[str, str]:
        """Return the trace."""
        return {"path": self.path}


class Generator(Workload):
    """A synthetic stream over one region of guest-virtual memory.

    Attributes
    ----------
    one_thread : str
        Why it has one thread alone; empty: it may have several.
    """

    footprint: Size = Field(default=64 << 20, description="Size of the region that is touched.")
    base: Address = Field(default=0x10_0000_0000, description="Guest-virtual address where the region begins.")
    threads: Threads = Field(
        default=1, description="Threads of the process, which share what is to be done; each makes its own choices."
    )

    one_thread: ClassVar[str] = "its stream is of one thread"
    within_footprint: ClassVar[tuple[str, ...]] = ("stride", "window", "step")
    within_memory: ClassVar[tuple[str, ...]] = ("footprint",)
    parts: ClassVar[tuple[str, ...]] = ()
    whole_pages: ClassVar[tuple[str, ...]] = ()

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with keys that are each valid alone."""
        if self.base % PAGE:
            yield Problem(("base",), f"{self.base:#_x} does not begin a 4 KiB page")
        if self.threads > 1 and self.one_thread:
            yield Problem(("threads",), f"found {self.threads}, expected 1: {self.one_thread}")
        if self.threads > (turns := getattr(self, self.lasts, self.threads)):
            yield Problem(("threads",), f"threads > {self.lasts} ({self.threads} > {turns}): some would do nothing")
        parts = [self.footprint // getattr(self, key) for key in self.parts]
        if parts and self.threads > parts[0]:
            yield Problem(
                ("threads",),
                f"found {self.threads}, expected at most {parts[0]}: each has blocks of the footprint for itself",
            )
        for key in self.within_footprint:
            size = getattr(self, key, 0)
            if size > self.footprint:
                yield Problem(
                    (key,),
                    f"{key} > footprint ({format_size(size)} > {format_size(self.footprint)})",
                )
        for key in self.whole_pages:
            if getattr(self, key) % PAGE:
                yield Problem((key,), f"{format_size(getattr(self, key))} is not a whole number of 4KiB pages")

    @model_validator(mode="after")
    def _check(self) -> Generator:
        raise_problems(self.problems())
        return self


class _Accesses(Generator):
    one_thread = ""
    lasts = "accesses"

    accesses: Accesses = Field(default=1_000_000, description="Accesses in all.")
    writes: Fraction01 = Field(default=0.0, description="Share of accesses that write.")


class Uniform(_Accesses):
    """Independent accesses, every word of the footprint equally likely."""

    stream = "vmsim.workloads.kinds:uniform"
    one_region = True

    kind: Literal["uniform"]


class Zipf(_Accesses):
    """Independent accesses, the page of rank r with a likelihood in proportion to 1 / r**exponent."""

    stream = "vmsim.workloads.kinds:zipf"
    one_region = True

    kind: Literal["zipf"]
    exponent: float = Field(default=0.99, ge=0, le=10, strict=True, description="0 is uniform; larger is more skewed.")


class Sequential(_Accesses):
    """One pass after another through the footprint."""

    stream = "vmsim.workloads.kinds:sequential"
    one_region = True

    kind: Literal["sequential"]
    stride: Size = Field(default=64, description="Bytes from one access to the next.")


class Chase(_Accesses):
    """Dependent accesses in a pseudo-random cycle that visits every slot once a round."""

    stream = "vmsim.workloads.kinds:chase"
    one_region = True

    kind: Literal["chase"]
    stride: Size = Field(default=64, description="Bytes from one slot to the next.")
    order: Literal["full", "page"] = Field(
        default="full", description="full: random over all slots. page: random within a page, page after page."
    )


class Gups(Generator):
    """Read-modify-write updates of uniformly random words, as HPCC RandomAccess makes them."""

    stream = "vmsim.workloads.kinds:gups"
    lasts = "updates"
    one_thread = ""
    one_region = True

    kind: Literal["gups"]
    updates: Accesses = Field(
        default=1_000_000, description="Updates in all; each is one read and one write of the same word."
    )


class WorkingSet(_Accesses):
    """Uniform accesses within a window that moves through the footprint."""

    stream = "vmsim.workloads.kinds:working_set"
    one_region = True

    kind: Literal["working-set"]
    window: Size = Field(default=8 << 20, description="Size of the window.")
    phase: Accesses = Field(default=100_000, description="Accesses between two moves of the window.")
    step: Size = Field(default=4 << 20, description="Bytes that the window moves, around the end of the footprint.")


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


class Switcher(_Accesses):
    """Processes that run in turn, each with uniform accesses to a footprint of its own."""

    stream = "vmsim.workloads.kinds:switcher"
    one_thread = _PROCESSES

    kind: Literal["switcher"]
    spaces: Processes = Field(default=2, description="Processes; each needs memory for its footprint.")
    every: Accesses = Field(default=10_000, description="Accesses between two switches.")


def _wrong(plugin: plugins.Plugin, kind: Any) -> str | None:
    """Return what is wrong with a registered kind of workload."""
    if not (isinstance(kind, type) and issubclass(kind, Workload)):
        return "it is no subclass of vmsim.scenario.workload.Workload"
    if get_args(kind.model_fields["kind"].annotation) != (plugin.name,):
        return f'its kind is not Literal["{plugin.name}"]'
    return None if hasattr(kind, "stream") else "it has no `stream`: the dotted name of what makes its stream"


plugins.add_check("workloads", _wrong)
