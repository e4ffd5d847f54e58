"""Whether pre-copy converges: what VMs write to, by their dirty log, against what a link carries."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from vmsim.advice.asked import Asked
from vmsim.advice.precopy import Migration, Written, migrate
from vmsim.advice.result import Advice, interval
from vmsim.base.errors import InputError
from vmsim.base.units import PAGE, parse_duration, parse_size
from vmsim.scenario import Scenario
from vmsim.scenario.cpuid import features
from vmsim.scenario.modes import mode_named

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["answer", "parse_link"]

LINK: Final = "128MiB/s"
"""QEMU's default of max-bandwidth (migration/options.c, MAX_THROTTLE)."""

_NEVER: Final = "1000s"  # between two readings: only how long the VMs run is looked at
_PARTS: Final = 4  # of a VM's time, at least, in each of which the log is read
_LOGS: Final = {"readings": "dirty_log.readings", "dirty": "dirty_log.pages"}
_BITS: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kMG])bit/s")


def answer(asked: Asked) -> Advice:
    """Measure dirty pages at several intervals, and go through the rounds of a migration with each seed's.

    Migration itself is not simulated: nothing is sent, and a VM is not slowed down but by its dirty log.
    """
    downtime = _seconds(asked.limit)
    rate = parse_link(asked.options.get("link", LINK))
    names, method = _log(asked.scenario)
    hertz = asked.scenario.cpu.frequency

    def measured(every: list[str]) -> pd.DataFrame:
        rows = [{"every": each, "method": method} for each in every]
        return asked.simulate(names=names, list=rows, figures=_LOGS)

    whole = measured([_NEVER])
    if not whole["finished"].all():
        raise InputError("migration: a VM does not run to its end; the host is too small for it.")
    runs = (whole["finish_cycle"] - whole["start_cycle"]).groupby(whole["vm_group"]).min()
    largest = whole["guest_frames"].max() * PAGE / rate
    every = _intervals(downtime, largest, runs.max() / hertz)
    results = measured([f"{max(1, round(seconds * hertz))}cycles" for seconds in every])
    results["interval_s"] = [int(str(each).removesuffix("cycles")) / hertz for each in results["every"]]
    results = results[results["readings"] > 0]
    table = _table(results, rate)
    found = [_group(name, mine, whole, rate, downtime) for name, mine in results.groupby("vm_group", sort=False)]
    if len(found) < len(runs):
        raise InputError("migration: a VM is too short for one reading of its dirty log; give it more accesses.")
    worst = max(found, key=lambda each: (not each["converges"], each["converges"] is None, each["left"]))
    text = _answer(worst, rate, downtime, asked.seeds, several=len(found) > 1)
    facts = {"converges": worst["converges"], "vms": found, "link": rate, "limit": downtime}
    return Advice("migration", text, table, asked.out, facts)


def parse_link(text: str) -> float:
    """Return the bytes a second of ``"128MiB/s"`` or ``"10Gbit/s"``.

    Raises
    ------
    InputError
        It is neither.
    """
    if bits := _BITS.fullmatch(str(text)):
        value = float(bits[1]) * {"k": 1e3, "M": 1e6, "G": 1e9}[bits[2]] / 8
    else:
        try:
            value = float(parse_size(text.removesuffix("/s"))) if str(text).endswith("/s") else 0.0
        except InputError:
            value = 0.0
    if value <= 0:
        raise InputError(f'link: found {text!r}, expected what it carries, for example "128MiB/s" or "10Gbit/s".')
    return value


def _seconds(text: str) -> float:
    try:
        duration = parse_duration(text)
    except InputError as error:
        raise InputError(f"limit: {error}") from None
    if duration.unit != "s" or not duration.amount:
        raise InputError(f'limit: found {text!r}, expected the downtime in seconds, for example "300ms".')
    return float(duration.amount)


def _log(scenario: Scenario) -> tuple[dict[str, list[str]], str]:
    """Return the keys of the log, and its method: the scenario's, or the one that KVM would use.

    Raises
    ------
    InputError
        A VM's mode keeps no log, or its log is stopped.
    """
    groups = [group for group in scenario.vm if group.count]
    modes = {vm.group: mode_named(vm.mode) for vm in scenario.vms}
    for group in groups:
        if why := modes[group.name].refusal("dirty_log"):
            raise InputError(f"vm.{group.name}.mode: {why}.")
        if group.dirty_log.stop.amount:
            raise InputError(f"vm.{group.name}.dirty_log.stop: the VM is logged to its end; leave it out.")
    given = {group.dirty_log.method for group in groups} - {"none"}
    cpu = scenario.cpu
    if len(given) > 1:
        raise InputError("vm.dirty_log.method: expected one method in all VMs; leave it out for the one that KVM uses.")
    by_ept = all(modes[group.name].by_ept(cpu) for group in groups)
    pml = by_ept and cpu.cpuid is not None and features(cpu.cpuid).pml
    method = given.pop() if given else "pml" if pml else "write-protect"
    keys = {key: [f"vm.{group.name}.dirty_log.{key}" for group in groups] for key in ("every", "method")}
    return keys, method


def _intervals(downtime: float, largest: float, runs: float) -> list[float]:
    """Return the intervals to measure, in seconds.

    The rounds that matter take from the downtime to the time that all memory takes. Where the VMs do not run as long,
    the longest interval that they allow.
    """
    longest = runs / _PARTS
    if downtime > longest:
        return [longest / 2, longest]
    end = min(max(largest, downtime), longest)
    found = [downtime]
    while found[-1] * 2 < end:
        found.append(found[-1] * 2)
    return found if found[-1] >= end else [*found, end]


def _table(results: pd.DataFrame, rate: float) -> pd.DataFrame:
    from vmsim.sweeps.statistics import summarize

    made = results.assign(pages=results["dirty"] / results["readings"])
    table = summarize(made, ["vm_group", "interval_s"], "pages")
    table = table.rename(columns={"mean": "dirty_pages"})[["vm_group", "interval_s", "dirty_pages", "low", "high"]]
    table.insert(1, "interval_ms", table.pop("interval_s") * 1000)
    table["mib_per_s"] = table["dirty_pages"] * PAGE / 2**20 / (table["interval_ms"] / 1000)
    table["of_link"] = table["mib_per_s"] * 2**20 / rate
    return table


def _group(name: Any, results: pd.DataFrame, whole: pd.DataFrame, rate: float, downtime: float) -> dict[str, Any]:
    """Return how the migration of a group's VMs goes: of each seed, the one that has most left."""
    import pandas as pd

    from vmsim.sweeps.statistics import summarize

    sizes = whole[whole["vm_group"] == name].groupby("replicate")["guest_frames"].max() * PAGE
    worst: list[dict[str, Any]] = []
    for (seed, _), mine in results.groupby(["replicate", "vm"], sort=False):
        memory = float(sizes[seed])
        readings = mine.assign(mean=mine["dirty"] / mine["readings"] * PAGE).sort_values("interval_s")
        written = Written(list(zip(readings["interval_s"], readings["mean"], strict=True)), memory)
        bad, good = (migrate(memory, bound, rate, downtime) for bound in (written.most, written.least))
        worst.append({"replicate": seed, "memory": memory, **_both(bad, good)})
    table = pd.DataFrame(worst).sort_values("left", kind="stable").drop_duplicates("replicate", keep="last")
    (left,) = summarize(table.assign(all=0), "all", "left").to_dict("records")
    verdicts = {*table["converges"]}
    return {
        "vm_group": str(name),
        "converges": verdicts.pop() if len(verdicts) == 1 else None,
        "seeds": int((table["converges"] == True).sum()),  # noqa: E712  (None is neither)
        "memory": float(table["memory"].max()),
        "rounds": int(table["rounds"].max()),
        "seconds": float(table["seconds"].max()),
        "left": float(left["mean"]),
        "low": float(left["low"]),
        "high": float(left["high"]),
        "longest": float(results["interval_s"].max()),
    }


def _both(bad: Migration, good: Migration) -> dict[str, Any]:
    """Return what is known: at worst it goes badly, at best well; where they do not agree, nothing."""
    sure = bad.converges if bad.converges == good.converges else None
    shown = good if sure is False else bad
    return {"converges": sure, "rounds": shown.rounds, "seconds": shown.seconds, "left": shown.left}


def _scaled(found: dict[str, Any], by: float) -> tuple[float, float, float]:
    return found["left"] * by, found["low"] * by, found["high"] * by


def _answer(found: dict[str, Any], rate: float, downtime: float, seeds: int, *, several: bool) -> str:
    name, carried = found["vm_group"], f"{interval(rate / 2**20, 0, 0)} MiB/s"
    of_which = f" of {name}, which has most to send," if several else f" of {name}"
    rest = interval(*_scaled(found, 2**-20), unit="MiB")
    stopped = interval(*_scaled(found, 1000 / rate), unit="ms")
    sure = f"95 % over {seeds} seeds"
    match found["converges"]:
        case True:
            if not found["rounds"]:
                text = f"Pre-copy{of_which} converges at {carried}: all its memory, {rest}, fits in the downtime"
                return f"{text}, {stopped} of {1000 * downtime:g} ms ({sure})."
            rounds = "1 round" if found["rounds"] == 1 else f"{found['rounds']} rounds"
            text = f"Pre-copy{of_which} converges at {carried}: after {rounds}, {found['seconds']:.3g} s at most, "
            return f"{text}{rest} are left, a downtime of {stopped} ({sure}; limit {1000 * downtime:g} ms)."
        case False:
            text = f"Pre-copy{of_which} never converges at {carried}: {rest} are written to in the time that "
            return f"{text}they take, so that it needs a downtime of {stopped} ({sure}; limit {1000 * downtime:g} ms)."
    if 0 < found["seeds"] < seeds and found["longest"] >= downtime:
        which = f"with {found['seeds']} of {seeds} seeds"
        return f"Pre-copy{of_which} converges {which} at {carried}: {rest} are left ({sure})."
    needed = max(downtime, found["memory"] / rate if found["longest"] >= downtime else 0.0)
    return (
        f"Not known of pre-copy{of_which}: the VM runs long enough for intervals of {1000 * found['longest']:.3g} ms "
        f"alone, and rounds take {1000 * needed:.3g} ms and more. Give its workload "
        f"{needed / found['longest']:.1f} times as many accesses."
    )
