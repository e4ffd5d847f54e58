"""What a VM runs: one class per kind of workload."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, model_validator

from vmsim.scenario.problems import Problem, raise_problems
from vmsim.scenario.types import Address, Count, Model, Positive, Size
from vmsim.units import PAGE, format_size

__all__ = [
    "Chase",
    "Generator",
    "Gups",
    "Sequential",
    "Trace",
    "Uniform",
    "WorkingSet",
    "Workload",
    "Zipf",
]

Fraction01 = Annotated[float, Field(ge=0, le=1, strict=True)]


class _Workload(Model):
    compute: Count = Field(default=1, description="Cycles of other work with each access.")


class Trace(_Workload):
    """A recorded memory trace, replayed."""

    kind: Literal["trace"]
    path: str = Field(
        min_length=1,
        description="The trace, relative to the scenario's folder, or the name of a bundled one.",
    )
    repeat: Positive = Field(default=1, description="Times the trace is replayed from its beginning.")
    format: Literal[
        "auto",
        "vmtrace",
        "lackey",
        "champsim",
        "champsim-cloudsuite",
        "drmemtrace",
        "dinero",
        "u64",
        "csv",
        "parquet",
    ] = Field(default="auto", description="Layout of the file; auto recognises it.")


class Generator(_Workload):
    """A synthetic stream over one region of guest-virtual memory."""

    footprint: Size = Field(description="Size of the region that is touched.")
    base: Address = Field(default=0x10_0000_0000, description="Guest-virtual address where the region begins.")

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with keys that are each valid alone."""
        if self.base % PAGE:
            yield Problem(("base",), f"{self.base:#_x} does not begin a 4 KiB page")
        for key in ("stride", "window", "step"):
            size = getattr(self, key, 0)
            if size > self.footprint:
                yield Problem(
                    (key,),
                    f"{key} > footprint ({format_size(size)} > {format_size(self.footprint)})",
                )

    @model_validator(mode="after")
    def _check(self) -> Generator:
        raise_problems(self.problems())
        return self


class _Accesses(Generator):
    accesses: Positive = Field(description="Accesses in all.")
    writes: Fraction01 = Field(default=0.0, description="Share of accesses that write.")


class Uniform(_Accesses):
    """Independent accesses, every word of the footprint equally likely."""

    kind: Literal["uniform"]


class Zipf(_Accesses):
    """Independent accesses, the page of rank r with a likelihood in proportion to 1 / r**exponent."""

    kind: Literal["zipf"]
    exponent: float = Field(default=0.99, ge=0, le=10, strict=True, description="0 is uniform; larger is more skewed.")


class Sequential(_Accesses):
    """One pass after another through the footprint."""

    kind: Literal["sequential"]
    stride: Size = Field(default=64, description="Bytes from one access to the next.")


class Chase(_Accesses):
    """Dependent accesses in a pseudo-random cycle that visits every slot once a round."""

    kind: Literal["chase"]
    stride: Size = Field(default=64, description="Bytes from one slot to the next.")
    order: Literal["full", "page"] = Field(
        default="full", description="full: random over all slots. page: random within a page, page after page."
    )


class Gups(Generator):
    """Read-modify-write updates of uniformly random words, as HPCC RandomAccess makes them."""

    kind: Literal["gups"]
    updates: Positive = Field(description="Updates in all; each is one read and one write of the same word.")


class WorkingSet(_Accesses):
    """Uniform accesses within a window that moves through the footprint."""

    kind: Literal["working-set"]
    window: Size = Field(description="Size of the window.")
    phase: Positive = Field(description="Accesses between two moves of the window.")
    step: Size = Field(description="Bytes that the window moves, around the end of the footprint.")


Workload = Annotated[Trace | Uniform | Zipf | Sequential | Chase | Gups | WorkingSet, Field(discriminator="kind")]
