"""What a VM runs: one class for each kind of workload.

A class holds the keys of ``[vm.workload]``; `Workload.stream` names what makes the stream of accesses of them, which is
imported when it is opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Final, Literal, get_args

from pydantic import Field, model_validator

from vmsim import plugins
from vmsim.base.formats import TraceFormat
from vmsim.base.units import PAGE, format_size
from vmsim.scenario.problems import Problem, raise_problems
from vmsim.scenario.types import (
    Accesses,
    Address,
    Cycles,
    Flag,
    Fraction01,
    Model,
    Rounds,
    Size,
    Threads,
)

__all__ = [
    "Chase",
    "Generator",
    "Gups",
    "Normal",
    "OfAccesses",
    "Sequential",
    "Trace",
    "Uniform",
    "WorkingSet",
    "Workload",
    "Zipf",
]


TURN: Final = 100_000


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
    instructions: float = Field(
        default=3.0,
        ge=1,
        le=10**6,
        strict=True,
        description="Instructions for each access, itself among them: its room in a window (host.overlap).",
    )
    dependent: Flag = Field(
        default=False, description="Each access needs what the one before has read: nothing overlaps (host.overlap)."
    )
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


class OfAccesses(Generator):
    """A synthetic stream of so many accesses."""

    one_thread = ""
    lasts = "accesses"

    accesses: Accesses = Field(default=1_000_000, description="Accesses in all.")
    writes: Fraction01 = Field(default=0.0, description="Share of accesses that write.")


class Uniform(OfAccesses):
    """Independent accesses, every word of the footprint equally likely."""

    stream = "vmsim.workloads.kinds:uniform"
    one_region = True

    kind: Literal["uniform"]


class Zipf(OfAccesses):
    """Independent accesses, the page of rank r with a likelihood in proportion to 1 / r**exponent."""

    stream = "vmsim.workloads.kinds:zipf"
    one_region = True

    kind: Literal["zipf"]
    exponent: float = Field(default=0.99, ge=0, le=10, strict=True, description="0 is uniform; larger is more skewed.")


class Normal(OfAccesses):
    """Independent accesses, pages by the normal law round the middle of the footprint, as pmbench's normal_ih.

    Its standard deviation is a twelfth of the footprint.
    """

    stream = "vmsim.workloads.kinds:normal_law"
    one_region = True
    whole_pages = ("footprint",)

    kind: Literal["normal"]
    filled: Flag = Field(
        default=False, description="Each page is written once, in order, by the first accesses; threads share them."
    )

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with keys that are each valid alone."""
        yield from super().problems()
        if self.filled and self.accesses < (pages := self.footprint // PAGE):
            text = f"found {self.accesses}, expected {pages} or more: filled writes each page of the footprint first"
            yield Problem(("accesses",), text)


class Sequential(OfAccesses):
    """One pass after another through the footprint."""

    stream = "vmsim.workloads.kinds:sequential"
    one_region = True

    kind: Literal["sequential"]
    stride: Size = Field(default=64, description="Bytes from one access to the next.")


class Chase(OfAccesses):
    """Dependent accesses in a pseudo-random cycle that visits every slot once a round."""

    stream = "vmsim.workloads.kinds:chase"
    one_region = True

    kind: Literal["chase"]
    dependent: Flag = Field(
        default=True, description="Each access needs what the one before has read: nothing overlaps (host.overlap)."
    )
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


class WorkingSet(OfAccesses):
    """Uniform accesses within a window that moves through the footprint."""

    stream = "vmsim.workloads.kinds:working_set"
    one_region = True

    kind: Literal["working-set"]
    window: Size = Field(default=8 << 20, description="Size of the window.")
    phase: Accesses = Field(default=100_000, description="Accesses between two moves of the window.")
    step: Size = Field(default=4 << 20, description="Bytes that the window moves, around the end of the footprint.")


def _wrong(plugin: plugins.Plugin, kind: Any) -> str | None:
    """Return what is wrong with a registered kind of workload."""
    if not (isinstance(kind, type) and issubclass(kind, Workload)):
        return "it is no subclass of vmsim.scenario.workload.Workload"
    if get_args(kind.model_fields["kind"].annotation) != (plugin.name,):
        return f'its kind is not Literal["{plugin.name}"]'
    return None if hasattr(kind, "stream") else "it has no `stream`: the dotted name of what makes its stream"


plugins.add_check("workloads", _wrong)
