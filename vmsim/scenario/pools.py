"""The policies of page pools in a scenario: what they refuse."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from vmsim.scenario.daemons import policies, policy_problem
from vmsim.scenario.keys import Pool, PoolOverride
from vmsim.scenario.problems import Problem

__all__ = ["refill_problems", "weighs"]


def refill_problems(pool: Pool, given: PoolOverride | None = None) -> Iterator[Problem]:
    """Yield why a pool cannot be refilled as it says, and what of it its policy makes no use of.

    Parameters
    ----------
    pool : Pool
        Of all monitors, or with `given`, of one.
    given : PoolOverride, optional
        What is said of that one alone: the keys that are looked at.
    """
    if given is not None and given.refill is None:
        return
    if wrong := policy_problem(pool.refill, "refills"):
        yield Problem(("refill",), wrong)
        return
    for key in policies()[pool.refill].ignores:
        usual = type(pool).model_fields[key].default
        if (getattr(pool, key) != usual) if given is None else getattr(given, key) is not None:
            yield Problem((key,), f'it has no effect with pool.refill = "{pool.refill}"; leave it out')


def weighs(names: Iterable[str]) -> bool:
    """Return whether one of some policies goes by the shares of VMs."""
    return any(name in policies() and policies()[name].weighs for name in names)
