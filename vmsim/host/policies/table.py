"""The policies of vmsim's own, as a scenario knows them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from pydantic import Field

from vmsim.scenario.daemons import HostTable, Policy
from vmsim.scenario.keys import VmKeys
from vmsim.scenario.problems import Problem
from vmsim.scenario.types import Fraction01

__all__ = [
    "BATCH",
    "CLOCK",
    "FAIR",
    "LARGEST",
    "MGLRU",
    "MOM",
    "NEEDIEST",
    "NONE",
    "PREDICTIVE",
    "PROPORTIONAL",
    "PRORATA",
    "RANDOM",
    "SHARES",
    "TWO_LIST",
]


class _Random(Policy):
    name = "random"
    about = "Each page of a VM, and at a place, that are drawn."
    build = "vmsim.host.policies.random:build"


class _Clock(Policy):
    name = "clock"
    about = "The next page that was not accessed since it was last looked at."
    build = "vmsim.host.policies.clock:build"


class _Refill(Policy):
    chooses = "refills"


class _Batch(_Refill):
    name = "batch"
    about = "Always as many pages."
    build = "vmsim.host.policies.batch:build"


class Proportional(HostTable):
    """``[host.proportional]``."""

    about = "How much a refill by policy proportional brings."

    percent: int = Field(default=50, ge=1, le=100, description="Of the pages that a pool lacks of its maximum.")


class _Proportional(_Refill):
    name = "proportional"
    about = "A part of what the pool lacks of its maximum."
    table = Proportional
    build = "vmsim.host.policies.proportional:build"
    ignores = ("batch",)


class Predictive(HostTable):
    """``[host.predictive]``."""

    about = "How far ahead refills by policy predictive look."

    percent: int = Field(
        default=200, ge=100, le=10_000, description="Of the pages that are taken while a refill is on its way."
    )


class _Predictive(_Refill):
    name = "predictive"
    about = "Ahead of what is taken while a refill is on its way."
    table = Predictive
    build = "vmsim.host.policies.predictive:build"


class _Spares(Policy):
    chooses = "spares"


class _Largest(_Spares):
    name = "largest"
    about = "Pools with most to spare give first; who asked first gets first."
    build = "vmsim.host.policies.largest:build"


class _Fair(_Spares):
    name = "fair"
    about = "Pools give down to a common level; who had least gets first."
    build = "vmsim.host.policies.fair:build"


class _Neediest(_Spares):
    name = "neediest"
    about = "As largest, but who lacks most gets first."
    build = "vmsim.host.policies.neediest:build"


class _Shares(_Spares):
    name = "shares"
    about = "As fair, by the shares of the VMs."
    build = "vmsim.host.policies.shares:build"
    weighs = True


class _TwoList(Policy):
    name = "two-list"
    about = "Linux's active and inactive lists, with refault distances."
    build = "vmsim.host.policies.two_list:build"
    chooses = "lists"


class _Mglru(Policy):
    name = "mglru"
    about = "Linux's multi-generational LRU."
    build = "vmsim.host.policies.mglru:build"
    chooses = "lists"


class _Allotments(Policy):
    chooses = "allotments"


class _None(_Allotments):
    name = "none"
    about = "Nobody is asked for anything."
    build = "vmsim.host.policies.none:build"


class Prorata(HostTable):
    """``[host.prorata]``."""

    about = "What policy prorata keeps free."

    free: float = Field(default=5.0, ge=0, lt=100, description="Percent of the host's memory.")


class _Prorata(_Allotments):
    name = "prorata"
    about = "All VMs have the same part of their memory."
    table = Prorata
    build = "vmsim.host.policies.prorata:build"


class Mom(HostTable):
    """``[host.mom]``."""

    about = "The rules of policy mom: shares of the host's memory, or of a guest's, from 0 to 1."

    pressure: Fraction01 = Field(default=0.20, description="Free memory of the host below which guests shrink.")
    critical: Fraction01 = Field(default=0.05, description="At or below it they shrink until they have to swap.")
    guest_free: Fraction01 = Field(default=0.20, description="What a guest is to have free where there is no pressure.")
    max_change: Fraction01 = Field(default=0.05, description="The most that a guest's memory changes at a time.")
    min_change: Fraction01 = Field(default=0.0025, description="The least.")
    samples: int = Field(default=10, ge=1, le=1000, description="Looks whose mean is what counts.")


class _Mom(_Allotments):
    name = "mom"
    about = "The rules of oVirt's Memory Overcommitment Manager, for balloons and for ksmd."
    table = Mom
    build = "vmsim.host.policies.mom:build"
    asks = True

    def problems(self, table: Mom, vms: Sequence[VmKeys]) -> Iterator[Problem]:
        if table.critical > table.pressure:
            yield Problem(("critical",), f"it is more than mom.pressure ({table.critical} > {table.pressure})")


TWO_LIST: Final = _TwoList()
MGLRU: Final = _Mglru()
RANDOM: Final = _Random()
CLOCK: Final = _Clock()
BATCH: Final = _Batch()
PROPORTIONAL: Final = _Proportional()
PREDICTIVE: Final = _Predictive()
LARGEST: Final = _Largest()
FAIR: Final = _Fair()
NEEDIEST: Final = _Neediest()
SHARES: Final = _Shares()
NONE: Final = _None()
PRORATA: Final = _Prorata()
MOM: Final = _Mom()
