"""Does a guest say what is free while its dirty log is read, and may whoever copies its memory leave that out?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.oracle.hinting import Migration
from tests.simulation.small import READ, WRITE, Script, Step, Threads, run, scenario, touches, vm
from vmsim.base.errors import InputError
from vmsim.engine.simulation import Simulation
from vmsim.frames.records import State
from vmsim.host.balloon import FreePageHints
from vmsim.monitor.features.log_reader import LogReader
from vmsim.record.outcome import Outcome
from vmsim.scenario import Scenario
from vmsim.tables.backing import OWNED

BLOCK = 1024  # pages
HOST: dict[str, Any] = {"what_if": True, "memory": "64MiB", "cores": 2}
QUICK = {"cost": {"balloon_message": 20_000}}
METHODS = [("ept", "write-protect"), ("ept", "pml"), ("npt", "ad-scan")]
METHODS += [("shadow", "write-protect"), ("agile", "write-protect")]


def figures(outcome: Outcome, component: str) -> dict[str, int]:
    return outcome.vms[0].figures.named(component)


def hinted(mode: str = "ept", method: str = "write-protect", **keys: Any) -> dict[str, Any]:
    log = {"method": method, "every": "1ms"} | keys.pop("log", {})
    return vm(mode=mode, dirty_log=log, balloon={"hinting": True}, **{"memory": "24MiB"} | keys)


def churn(pages: int = 2500) -> list[Step]:
    """Return steps that use memory, free most of it, wait, and use it again."""
    steps = [("map", 0, pages), *touches(range(pages), WRITE), ("unmap", 200, pages - 200), ("io", 0, 1, 900_000)]
    return [*steps, ("map", 200, pages - 200), *touches(range(200, pages), WRITE), *touches(range(pages), READ)]


@pytest.mark.parametrize("populate", ["lazy", "eager"])
@pytest.mark.parametrize(("mode", "method"), METHODS)
def test_what_is_in_use_is_copied_whatever_the_guest_calls_free(
    mode: str, method: str, populate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each reading: a frame that the guest uses has been copied since it was written to, or is about to be."""
    reads: list[tuple[np.ndarray, np.ndarray]] = []
    machines: list[Any] = []
    twin = Migration(6 * BLOCK)
    restart, read = FreePageHints.restart, LogReader.read

    def asked(self: FreePageHints) -> np.ndarray:
        found = restart(self)
        reads.append((np.flatnonzero(found), np.flatnonzero(machines[0].features[0].dirty)))
        return found

    def looked(self: LogReader, *args: Any, **keys: Any) -> int:
        cycles = read(self, *args, **keys)
        twin.read(*(part.tolist() for part in reads[-1]))
        machine = simulation.vms[0]
        states = machine.kernel.frames.frames["state"]
        used = np.isin(states, (State.GUEST, State.TABLE)) & (machine.slot.backing & OWNED != 0)
        used[machine.frames.ready.held()] = False
        assert not twin.lacks(np.flatnonzero(used).tolist())
        return cycles

    monkeypatch.setattr(FreePageHints, "restart", asked)
    monkeypatch.setattr(LogReader, "read", looked)
    what = scenario(hinted(mode, method, vcpus=2, populate=populate), cpu_override=QUICK, **HOST)
    streams = [Threads([Script(churn()), Script([("touch", 0, READ), ("io", 0, 1, 700_000)])])]
    simulation = Simulation(what, streams=streams)
    machines.append(simulation.vms[0].monitor)
    outcome = simulation.run()
    assert outcome.ending is None
    counts, log = figures(outcome, "hinting"), figures(outcome, "dirty_log")
    assert counts["commands"] >= 2
    assert counts["pages"] == counts["blocks"] * BLOCK >= 3 * BLOCK
    assert log["hinted"] == twin.spared >= 3 * BLOCK
    assert len(reads) == log["readings"] + 1
    assert simulation.host.free == simulation.host.size - sum(simulation.host.count(-1).values())


IDLE: list[Step] = [("touch", 0, WRITE), ("io", 0, 1, 1_000_000)]


def one(steps: list[Step], **keys: Any) -> tuple[Scenario, Simulation, Outcome]:
    what = scenario(hinted(**keys), cpu_override=QUICK, **HOST)
    return what, *run(what, [Script(steps)], every=500_003, events=10**6)


def test_a_burst_costs_what_its_parts_cost_and_takes_no_memory() -> None:
    """16 MiB of which three blocks of 4 are free, by hand: one exit, one message; they are given back at the end."""
    what, simulation, outcome = one(IDLE, memory="16MiB", populate="eager", log={"stop": "100us"})
    cost, counts = what.cpu.cost, figures(outcome, "hinting")
    assert (counts["commands"], counts["blocks"], counts["shrunk"]) == (1, 3, 0)
    assert figures(outcome, "exits")["BALLOON"] == 1
    device = figures(outcome, "balloon")
    assert device["cycles"] == 20_000 + 3 * cost.balloon_entry
    assert device["freed"] == 0
    guest = 3 * (cost.balloon_page + cost.balloon_release)
    assert outcome.vms[0].cycles["balloon"] - guest in (2 * cost.ipi_handle, 3 * cost.ipi_handle)
    assert figures(outcome, "dirty_log")["hinted"] == 3 * BLOCK
    assert simulation.vms[0].balloon.held == 0


def test_a_kernel_that_has_no_page_left_takes_blocks_back() -> None:
    """A program needs 10 of 16 MiB while 12 are held."""
    steps = [*IDLE, ("map", 1, 2600), *touches(range(1, 2601), WRITE)]
    _, _, outcome = one(steps, memory="16MiB", log={"every": "100ms"})
    assert outcome.ending is None
    assert figures(outcome, "hinting")["shrunk"] >= 2


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"balloon": {"hinting": True}}, "hinting.*no effect with dirty_log.method"),
        (
            {"balloon": {"hinting": True, "size": "1MiB", "driver": False}, "dirty_log": {"method": "pml"}},
            "hinting.*no effect with balloon.driver",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Scenario.from_tables({"host": {"what_if": True, "memory": "64MiB"}, "vm": [vm(memory="12MiB", **keys)]})
