"""How much slower VMs are at one point than at another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CAUSES", "cost_of", "slowest", "times"]

CAUSES: Final = {
    "swap_wait": "cycles.swap_wait",
    "guest_swap_wait": "cycles.guest_swap_wait",
    "guest_reclaim": "cycles.reclaim",
    "limit_wait": "cycles.limit_wait",
    "balloon_cycles": "cycles.balloon",
}
"""Columns of causes that the summary has none of, as a sweep's figures."""

_NOTABLE: Final = 1.05  # times as long, which are worth a reason whatever the interval
_COUNTED: Final = {
    "pcpu_wait_cycles": "waiting for a core",
    "swap_wait": "waiting for the swap device",
    "guest_swap_wait": "waiting for the guest's swap device",
    "guest_reclaim": "reclaim in the guest",
    "limit_wait": "waiting at a limit",
    "balloon_cycles": "the balloon's driver",
    "host_wait_cycles": "waiting for free memory",
    "pool_wait_cycles": "waiting for the pool",
    "translation_cycles": "translation",
    "exit_cycles": "VM exits",
    "guest_fault_cycles": "page faults of the guest",
}


def cost_of(results: pd.DataFrame) -> pd.DataFrame:
    """Return time per access of each row, from a VM's start to its end: ``cost``; infinite where it did not finish."""
    made = results.copy()
    spent = (made["finish_cycle"] - made["start_cycle"]) / made["accesses"].clip(lower=1)
    made["cost"] = spent.where(made["finished"] & (made["accesses"] > 0), float("inf"))
    return made


def slowest(here: pd.DataFrame, there: pd.DataFrame) -> pd.DataFrame:
    """Return for each seed how many times as long the VM that lost most takes.

    Parameters
    ----------
    here, there : DataFrame
        As of `cost_of`; with `there`, the time of a group is the mean of its VMs.

    Returns
    -------
    DataFrame
        replicate, times.
    """
    base = there.groupby(["vm_group", "replicate"])["cost"].mean()
    places = list(zip(here["vm_group"], here["replicate"], strict=True))
    found = here.assign(times=here["cost"].to_numpy() / base.loc[places].to_numpy())
    return found.groupby("replicate", sort=False)["times"].max().reset_index()


def times(here: pd.DataFrame, there: pd.DataFrame) -> dict[str, Any]:
    """Return the mean and the interval over the seeds of `slowest`, and what most of the added time goes to."""
    from vmsim.sweeps.statistics import summarize

    found = slowest(here, there)
    if found["times"].max() == float("inf"):
        return {"times": float("inf"), "low": float("inf"), "high": float("inf"), "mostly": "does not finish"}
    (row,) = summarize(found.assign(all=0), "all", "times").to_dict("records")
    slower = row["low"] > 1 or row["mean"] > _NOTABLE  # else nothing is to be explained: it may be as fast
    why = _mostly(here, there) if slower else ""
    return {"times": row["mean"], "low": max(0.0, row["low"]), "high": row["high"], "mostly": why}


def _mostly(here: pd.DataFrame, there: pd.DataFrame) -> str:
    added = {}
    for column, words in _COUNTED.items():
        more = sum(
            mine[column].sum() / max(mine["accesses"].sum(), 1)
            - there.loc[there["vm_group"] == group, column].sum()
            / max(there.loc[there["vm_group"] == group, "accesses"].sum(), 1)
            for group, mine in here.groupby("vm_group")
        )
        added[words] = float(more)
    words = max(added, key=lambda each: added[each])
    return words if added[words] > 0 else ""
