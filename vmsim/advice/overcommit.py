"""How many of these VMs fit: the largest number of them that none pays too much for."""

from __future__ import annotations

from math import gcd
from typing import Any, Final

from vmsim.advice.asked import Asked, last_that_holds
from vmsim.advice.result import Advice, interval
from vmsim.advice.slower import CAUSES, cost_of, times
from vmsim.base.errors import InputError
from vmsim.scenario import Scenario

__all__ = ["answer"]

_MOST: Final = 8  # times the host's memory, of which VMs are tried
_LARGEST: Final = 4094
_GIVES: Final = ("swap", "overcommit")  # daemons that have memory for more than fits


def answer(asked: Asked) -> Advice:
    """Find the largest number whose slowest VM is within the limit, alone on the host being 1.

    VMs of several tables stay in the proportion that they have in the scenario. All that makes a VM slower counts,
    the wait for a core too. A number holds if the interval over the seeds is within the limit, and all VMs finish.
    """
    import pandas as pd

    factor = asked.factor()
    _check(asked.scenario)
    groups = [group for group in asked.scenario.vm if group.count]
    share = gcd(*(group.count for group in groups))
    unit = {group.name: group.count // share for group in groups}
    memory = sum(unit[group.name] * group.memory for group in groups)
    most = max(share, min(_MOST * asked.scenario.host.memory // memory, _LARGEST // sum(unit.values())))
    alone = [{f"vm.{name}.count": int(name == each) for name in unit} for each in unit]
    single = cost_of(asked.simulate(list=alone, figures=CAUSES))
    if not single["finished"].all():
        who = single.loc[~single["finished"], "vm_group"].iloc[0]
        raise InputError(f"vm.{who}: not even one, alone on the host, runs to its end; the host is too small for it.")
    rows: dict[int, dict[str, Any]] = {}

    def holds(number: int) -> bool:
        counts = [{f"vm.{name}.count": number * each for name, each in unit.items()}]
        here = cost_of(asked.simulate(list=counts, figures=CAUSES))
        over = number * memory / asked.scenario.host.memory
        rows[number] = {"vms": number * sum(unit.values()), "memory": over, **times(here, single)}
        return bool(rows[number]["high"] <= factor)

    last = last_that_holds(holds, share, most)
    table = pd.DataFrame([rows[number] for number in sorted(rows)])
    table.insert(5, "holds", table["high"] <= factor)
    text, facts = _answer(rows, last, last == most, factor, asked.seeds)
    facts["each"] = {name: last * each for name, each in unit.items()}
    return Advice("overcommit", text + _kinds(facts["each"], last), table, asked.out, facts)


def _check(scenario: Scenario) -> None:
    if not any(name in scenario.daemons for name in _GIVES):
        raise InputError(
            "overcommit: the host has nowhere to put memory that does not fit, so that VMs beyond it wait for good; "
            'add a table [host.swap] with the line device = "nvme", or [host.overcommit] with a policy '
            "(vmsim policies)."
        )


def _kinds(each: dict[str, int], last: int) -> str:
    if len(each) == 1 or not last:
        return ""
    return " Of each table: " + ", ".join(f"{count} {name}" for name, count in each.items()) + "."


def _answer(
    rows: dict[int, dict[str, Any]], last: int, all_of_them: bool, factor: float, seeds: int
) -> tuple[str, dict[str, Any]]:
    sure = f"95 % over {seeds} seeds; limit {factor:g}"
    if not last:
        text = f"Not even {_vms(rows[1]['vms'])} that run together fit ({sure}): {_slower(rows[1])}."
        return text, {"vms": 0, "limit": factor}
    best = rows[last]
    text = f"{_vms(best['vms'])}, with {best['memory']:.2f} times the host's memory, fit: {_slower(best)} ({sure})."
    if best["vms"] == 1:  # which is alone
        text = f"1 VM, with {best['memory']:.2f} times the host's memory, fits ({sure})."
    facts = {"vms": best["vms"], **{key: best[key] for key in ("memory", "times", "low", "high")}, "limit": factor}
    if all_of_them:
        return f"At least {text} More were not tried.", facts
    after = rows[last + 1]
    return f"{text} With {after['vms']:,}: {_slower(after)}.", facts


def _vms(count: int) -> str:
    return "1 VM" if count == 1 else f"{count:,} VMs"


def _slower(row: dict[str, Any]) -> str:
    """Say what a number does to the VM that loses most."""
    if row["times"] == float("inf"):
        return "a VM does not run to its end"
    mostly = f", mostly {row['mostly']}" if row["mostly"] else ""
    return f"the slowest takes {interval(row['times'], row['low'], row['high'])} times as long as alone{mostly}"
