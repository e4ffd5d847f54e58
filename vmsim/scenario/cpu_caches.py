"""The data caches of a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from vmsim.base.units import format_size
from vmsim.scenario.problems import KeyPath, Problem, raise_problems
from vmsim.scenario.replacement import Replacement, leaders_of, unfit
from vmsim.scenario.types import Cycles, Flag, Model, Positive, Size, Ways

__all__ = ["L2", "Cache", "CacheLevel", "Llc", "geometry"]

MAX_CACHE: Final = 1 << 30
"""Bytes of a cache."""


def geometry(entries: int, ways: int, key: str, unit: str = "entries") -> Iterator[Problem]:
    """Yield what is wrong with so many entries, of the name `key`, in so many ways."""
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


def _listed(text: str) -> str:
    leaders_of(text)
    return text


Leaders = Annotated[str, AfterValidator(_listed)]


class CacheLevel(Model):
    """One cache; `slices` equal parts have each a power of two of sets."""

    size: Size
    ways: Annotated[Ways, Field(ge=1)]
    line: Literal[64] = 64
    slices: Annotated[Positive, Field(le=1024)] = 1
    replacement: Replacement = "lru"
    cycles: Cycles = Field(description="Load-to-use cycles of a hit.")
    duels: ClassVar[bool] = False

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
        raise_problems(geometry(lines, self.ways, "size", "lines of each slice"))
        raise_problems(unfit(self.replacement, self.ways, duels=self.duels))
        return self


class L2(CacheLevel):
    """The second cache of a core."""

    pairs: Flag = Field(
        default=False,
        description="A line that it gets brings the other one of its 128 bytes along (Intel's spatial prefetcher).",
    )


class Llc(CacheLevel):
    """The last-level cache."""

    duels: ClassVar[bool] = True
    filled: Literal["misses", "victims"] = Field(
        default="misses",
        description="By what: lines that miss it, as the L2 is; or lines that leave the L2, and a hit leaves it (AMD).",
    )
    inclusive: Flag = Field(
        default=False,
        description="It has all that the L1s and L2s have: what leaves it leaves them (Intel's, Nehalem to Broadwell).",
    )
    peer_cycles: Cycles | None = Field(
        default=None,
        description="Load-to-use cycles of a line that another core's L2 has and it has not, where victims fill it; "
        "those of its own if left out.",
    )

    leaders: tuple[Leaders, Leaders] | None = Field(
        default=None,
        description="Where its sets duel: those that keep to the first policy, and those that keep to the second, as "
        '"512-575,2560"; counted through the slices.',
    )

    @property
    def leading(self) -> tuple[list[int], list[int]]:
        """The sets that lead for each of two policies."""
        first, second = self.leaders or ("", "")
        return (leaders_of(first), leaders_of(second)) if first else ([], [])

    @model_validator(mode="after")
    def _check_duel(self) -> Llc:
        first, second = self.leading
        path, duel = ("leaders",), "/" in self.replacement
        if duel and not first:
            raise_problems([Problem(path, f"{self.replacement} needs sets that lead for each of the two: leaders")])
        if first and not duel:
            raise_problems([Problem(path, f"with {self.replacement} no sets duel: leave it out, or name two policies")])
        if duel and self.filled == "victims":
            raise_problems([Problem(("filled",), "an LLC of victims whose sets duel is not known of any CPU")])
        if both := {*first} & {*second}:
            raise_problems([Problem(path, f"set {min(both)} leads for both")])
        if first and max(first + second) >= (sets := self.sets * self.slices):
            raise_problems([Problem(path, f"found set {max(first + second)}, expected at most {sets - 1}")])
        return self

    @model_validator(mode="after")
    def _check_inclusive(self) -> Llc:
        if self.inclusive and self.filled == "victims":
            text = 'filled by victims it has not what the L2s have; leave this out, or set filled = "misses"'
            raise_problems([Problem(("inclusive",), text)])
        return self


class Cache(Model):
    """The private caches, the shared one, and where page walks enter them."""

    l1: CacheLevel
    l2: L2
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
