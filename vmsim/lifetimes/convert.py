"""From a table of events, and a scenario for all that it does not say, to a scenario with a VM for each life."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from vmsim.base.errors import InputError
from vmsim.base.files import printable
from vmsim.base.units import PAGE, format_size, parse_duration, parse_size
from vmsim.lifetimes.events import Life, lives_of
from vmsim.lifetimes.forms import FORMS, read_events
from vmsim.scenario import Scenario
from vmsim.scenario.share import parse_share, share_of
from vmsim.scenario.types import MAX_VMS

__all__ = ["arrivals"]

_SECOND: Final = 10**9
_LONGEST: Final = 24  # characters of a name that a VM keeps


def arrivals(
    table: str | Path,
    scenario: Scenario | Mapping[str, Any] | str | Path,
    *,
    form: str | None = None,
    first: int | None = None,
    after: str = "0s",
    speed: float = 1,
    scale: float = 1,
    machine: str | int | None = None,
    footprint: str | None = None,
) -> Scenario:
    """Make a scenario in which VMs come, change their size and go as a table says.

    A VM that changes its size has the most memory that it ever gets, and a balloon that holds the rest.

    Parameters
    ----------
    table : path
        A CSV, compressed or not: time, vm, event (start, stop, resize), size; or of another of `FORMS`.
    scenario : Scenario, mapping or path
        The host, and one ``[[vm]]`` table with all that the table does not say: what each VM runs, and how.
    form : str, optional
        A key of `FORMS`. By default what the first line shows.
    first : int, optional
        Take so many VMs, those that start first.
    after : str, optional
        Leave out VMs that start before this time of the table.
    speed, scale : float, optional
        Divide times by `speed`, multiply sizes by `scale`.
    machine : size, optional
        Memory of a machine, of which the tables of Google and Alibaba give parts. By default that of the host.
    footprint : str, optional
        The share of a VM's memory that its workload uses, such as ``"60%"``. By default the scenario's.

    Returns
    -------
    Scenario
        The first VM starts at 0, but for a table of vmsim's own form, whose times are kept.

    Raises
    ------
    InputError
        The table or the scenario cannot be used; of the table with the line.
    """
    from vmsim.api import scenario_of

    path, base = Path(table), scenario_of(scenario)
    if len(base.vm) != 1:
        raise InputError(f"the scenario has {len(base.vm)} [[vm]] tables; expected one, which all VMs are made like.")
    for name, value in (("speed", speed), ("scale", scale)):
        if not 0 < value < 10**12:
            raise InputError(f"{name}: found {value}, expected a number above 0.")
    found, events = read_events(path, form, base.host.memory if machine is None else parse_size(machine))
    begin = parse_duration(after).cycles(_SECOND)
    lives = [life for life in lives_of(events, printable(path), strict=FORMS[found].strict) if life.start >= begin]
    if not lives:
        raise InputError(f"{printable(path)}: no VM starts{f' after {after}' if begin else ' in it'}.")
    lives = lives[:first]
    if len(lives) > MAX_VMS:
        raise InputError(f"{printable(path)}: {len(lives)} VMs start; expected {MAX_VMS} at most: take the first ones.")
    zero = 0 if found == "events" else lives[0].start
    return _made(base, lives, zero, Fraction(speed), Fraction(scale), footprint)


def _made(
    base: Scenario, lives: list[Life], zero: int, speed: Fraction, scale: Fraction, footprint: str | None
) -> Scenario:
    """Return the scenario with a VM for each life."""
    data = base.model_dump(exclude_none=True)
    data["host"] = {key: value for key, value in data["host"].items() if value != {}}
    (table,) = data["vm"]
    workload = table.pop("workload")
    workload = {"kind": workload.pop("kind"), **workload}
    if footprint is not None and "footprint" not in workload:
        raise InputError(f"footprint: workload {workload['kind']} has none; leave it out.")
    names: set[str] = set()
    vms = []
    for number, life in enumerate(lives, 1):
        sizes = [(time, _pages(size, scale)) for time, size in life.sizes]
        most = max(size for _, size in sizes)
        vm = {**table, "name": _name(life.vm, number, names), "count": 1, "memory": format_size(most)}
        vm["start"] = _time(life.start - zero, speed)
        if life.stop is not None:
            vm["stop"] = _time(life.stop - zero, speed)
        if len(sizes) > 1:
            rows = [(_time(time - life.start, speed), format_size(most - size)) for time, size in sizes[1:]]
            kept = dict(rows)  # of those that fall together the last
            vm["balloon"] = {
                **table.get("balloon", {}),
                "size": most - sizes[0][1],
                "schedule": [*map(list, kept.items())],
            }
        own = dict(workload)
        if footprint is not None:
            own["footprint"] = format_size(max(PAGE, _share(footprint, most) // PAGE * PAGE))
        vms.append({**vm, "workload": own})
    return Scenario.from_tables(data | {"vm": vms}, folder=base.folder, source="the scenario that the table makes")


def _share(text: str, whole: int) -> int:
    """Return a share of some bytes."""
    share = parse_share(text, what="a share of a VM's memory", expected='write one such as "60%"')
    if isinstance(share, int):
        raise InputError(f'footprint: found {text!r}; write a share such as "60%".')
    return share_of(share, whole)


def _pages(size: int, scale: Fraction) -> int:
    """Return bytes in whole pages, one at least."""
    return max(1, -(-size * scale // PAGE)) * PAGE


def _time(nanoseconds: int, speed: Fraction) -> str:
    return f"{max(0, round(nanoseconds / speed))}ns"


def _name(called: str, number: int, names: set[str]) -> str:
    """Return a name that a scenario can have, as near as may be to what the table calls a VM."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", called)[:_LONGEST].strip("_-")
    if not plain or plain.isdigit():
        plain = f"vm{number}" + (f"_{plain}" if plain else "")
    name = plain if plain not in names else f"{plain}_{number}"
    names.add(name)
    return name
