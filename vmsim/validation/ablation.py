"""What each mechanism does to predictions: the studies that take seconds, with it and without it.

A mechanism that the study has is taken away. One that no preset has, for lack of a source that says how much of it a
machine had, is added: what it does is shown, and no study keeps it. What a study fits is fitted anew each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from math import inf
from statistics import median
from typing import Any, Final, NamedTuple

from vmsim.base.spawning import Spawn, attend, cores, safely
from vmsim.scenario import Cpu, Scenario
from vmsim.validation import agile, bhargava, instlat, vmitosis
from vmsim.validation.report import Report

__all__ = ["MECHANISMS", "STUDIES", "Mechanism", "Row", "Study", "ablate", "pairs"]

Changes = dict[str, Any]
"""Values by dotted key of a scenario."""
_CPU: Final = "host.cpu_override"
_SCATTERED: Final = "64MiB"
_LATENCY: Final = 4  # cycles before a walk's first reference: Haswell leaves no more (docs/reference/validation.md)
_LONGEST: Final = ("vmitosis", "agile, astar", "bhargava")  # begun first
_VICTIMS: Final = ("skylake-x", "cascade-lake", "k10")  # presets here whose CPU fills its L3 with what leaves the L2s


class Study(NamedTuple):
    """A study, or the part of it that takes seconds."""

    file: str  # of its scenario
    cpu: str
    predict: Callable[..., Report]
    walks_alone: bool  # it compares walks, not loads: what else an access takes does not matter
    compares: bool  # its rows are what caches of walks do: to take these away is what it does itself

    def scenario(self) -> Scenario:
        """Return the study's scenario, on its CPU."""
        text = files("vmsim.validation").joinpath(self.file).read_text(encoding="utf-8")
        return Scenario.from_toml(text, source=self.file).replace(**{"host.cpu": self.cpu})


STUDIES: Final = {
    "instlat, sandy-bridge": Study(
        "instlat.toml", "sandy-bridge", partial(instlat.predict, ["sandy-bridge"]), False, False
    ),
    "instlat, skylake-x": Study("instlat.toml", "skylake-x", partial(instlat.predict, ["skylake-x"]), False, False),
    "vmitosis": Study("gups.toml", "cascade-lake", partial(vmitosis.predict, 200_000), True, False),
    "bhargava": Study("bhargava.toml", "k10", bhargava.predict, True, True),
    "agile, astar": Study("agile.toml", "sandy-bridge", partial(agile.predict, ["astar"]), True, False),
}
"""By name. Of `vmitosis` a tenth of the updates; of `agile` one program: no other fits its column sooner."""


@dataclass(frozen=True, slots=True)
class Mechanism:
    """A mechanism.

    Attributes
    ----------
    kept : bool
        The studies have it, and are run without it; else the other way round.
    changes : callable
        Gives what takes it away from a study, or adds it; nothing where it does not concern the study.
    """

    kept: bool
    changes: Callable[[Study, Scenario], Changes]


def _arrays(cpu: Cpu) -> Iterator[tuple[str, Any]]:
    """Yield every array of a CPU that has one of its own, by dotted key."""
    for level, arrays in (("l1", cpu.tlb.l1), ("l2", cpu.tlb.l2)):
        for page in ("4K", "2M", "1G"):
            array = arrays[page]
            if array is not None and array.shared is None:
                yield f"tlb.{level}.{page}", array
    for name in ("l1", "l2", "llc"):
        yield f"cache.{name}", getattr(cpu.cache, name)


def _replacement(study: Study, scenario: Scenario) -> Changes:
    found = [key for key, array in _arrays(scenario.cpu) if array.replacement.lower() != "lru"]
    return {f"{_CPU}.{key}.replacement": "lru" for key in found}


def _set_hash(study: Study, scenario: Scenario) -> Changes:
    found = [key for key, array in _arrays(scenario.cpu) if getattr(array, "index", "") == "xor"]
    return {f"{_CPU}.{key}.index": "modulo" for key in found}


def _second_tlb(study: Study, scenario: Scenario) -> Changes:
    return {} if study.walks_alone else {f"{_CPU}.tlb.l2_cycles": 0}


def _walk_caches(study: Study, scenario: Scenario) -> Changes:
    names = [] if study.compares else [name for name in type(scenario.cpu.pwc).model_fields if name[-1] == "e"]
    return {f"{_CPU}.pwc.{name}.{key}": 0 for name in names if name != "style" for key in ("entries", "ways")}


def _nested_tlb(study: Study, scenario: Scenario) -> Changes:
    native = scenario.vms[0].mode == "native"
    return {} if native or study.compares else {f"{_CPU}.ntlb.{key}": 0 for key in ("entries", "ways")}


def _data(study: Study, scenario: Scenario) -> Changes:
    return {"host.data_caches": False}


def _inclusive(study: Study, scenario: Scenario) -> Changes:
    return {f"{_CPU}.cache.llc.inclusive": False} if scenario.cpu.cache.llc.inclusive else {}


def _overlap(study: Study, scenario: Scenario) -> Changes:
    return {"host.overlap": False} if scenario.host.overlap else {}


def _victims(study: Study, scenario: Scenario) -> Changes:
    return {f"{_CPU}.cache.llc.filled": "victims"} if study.cpu in _VICTIMS else {}


def _walk_start(study: Study, scenario: Scenario) -> Changes:
    return {f"{_CPU}.walk_start": _LATENCY}


def _tables(study: Study, scenario: Scenario) -> Changes:
    owners = ["host"] if scenario.vms[0].mode == "native" else ["host", "vm"]
    return {f"{owner}.table_span": _SCATTERED for owner in owners}


MECHANISMS: Final = {
    "replacement policies": Mechanism(True, _replacement),
    "set hash of the TLB": Mechanism(True, _set_hash),
    "time of a second-TLB hit": Mechanism(True, _second_tlb),
    "page walk caches": Mechanism(True, _walk_caches),
    "nested TLB": Mechanism(True, _nested_tlb),
    "data in the caches": Mechanism(True, _data),
    "inclusive L3": Mechanism(True, _inclusive),
    "overlap": Mechanism(True, _overlap),
    "L3 filled by victims": Mechanism(False, _victims),
    f"{_LATENCY} cycles to start a walk": Mechanism(False, _walk_start),
    f"tables scattered, {_SCATTERED}": Mechanism(False, _tables),
}
"""By name."""


class Row(NamedTuple):
    """A study with and without a mechanism.

    `error_with` and `error_without` are the median, over the study's predictions, of how far each lies off: 1 is the
    edge of what agrees.
    """

    study: str
    mechanism: str
    kept: bool
    agree_with: int
    agree_without: int
    of: int
    error_with: float
    error_without: float


def pairs() -> Iterator[tuple[str, str, Scenario]]:
    """Yield each study and mechanism that concerns it, by name, and the study's scenario changed."""
    for study, its in STUDIES.items():
        scenario = its.scenario()
        for mechanism, each in MECHANISMS.items():
            changes = each.changes(its, scenario)
            if changes:
                yield study, mechanism, scenario.replace(**changes)


def ablate(
    studies: Sequence[str] = tuple(STUDIES), mechanisms: Sequence[str] = tuple(MECHANISMS), *, jobs: int | None = None
) -> list[Row]:
    """Predict studies with each mechanism that concerns them and without it.

    Parameters
    ----------
    studies, mechanisms : sequence of str, optional
        Of `STUDIES` and `MECHANISMS`.
    jobs : int, optional
        Processes; all cores if left out. 1 is this process.
    """
    chosen = [(study, mechanism) for study, mechanism, _ in pairs() if study in studies and mechanism in mechanisms]
    concerned = dict.fromkeys(study for study, _ in chosen)
    tasks: list[tuple[str, str]] = sorted([*chosen, *((study, "") for study in concerned)], key=_long_first)
    jobs = min(cores() if jobs is None else jobs, len(tasks) or 1)
    if jobs == 1:
        found = dict(zip(tasks, map(_errors, tasks), strict=True))
    else:
        with safely():
            pool = ProcessPoolExecutor(jobs, Spawn(), initializer=attend)
        with pool:
            found = dict(zip(tasks, pool.map(_errors, tasks), strict=True))
    rows = []
    for study, mechanism in chosen:
        kept, as_it_is, changed = MECHANISMS[mechanism].kept, found[study, ""], found[study, mechanism]
        those = [changed.get(quantity, inf) for quantity in as_it_is]  # what a changed curve never comes to is off
        yes, no = ([*as_it_is.values()], those) if kept else (those, [*as_it_is.values()])
        rows.append(Row(study, mechanism, kept, _agree(yes), _agree(no), len(yes), median(yes), median(no)))
    return rows


def _agree(errors: Sequence[float]) -> int:
    return sum(error <= 1 for error in errors)


def _long_first(task: tuple[str, str]) -> int:
    return _LONGEST.index(task[0]) if task[0] in _LONGEST else len(_LONGEST)


def _errors(task: tuple[str, str]) -> dict[str, float]:
    """Predict a study, with the change of a mechanism if one is named; return how far each prediction lies off."""
    name, mechanism = task
    study = STUDIES[name]
    changes = MECHANISMS[mechanism].changes(study, study.scenario()) if mechanism else {}
    claims = [each for each in study.predict(changes=changes).claims if each.kind == "prediction"]
    return {each.quantity: each.bands for each in claims if each.bands is not None}
