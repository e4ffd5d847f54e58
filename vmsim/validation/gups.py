"""GUPS in a 64 GB guest: page walks under EPT predicted from those of the native run (vMitosis, ASPLOS 2021).

The native run L gives one number to fit, the latency of DRAM as a page walk sees it, so that the simulated walk
cycles of an update are those measured. The same machine then runs LL (EPT, 4 KiB pages in both dimensions). Walk
cycles are sums over the processor's walkers, which work side by side. Misses and walks overlap as the processor's
window lets them (`host.overlap`); an update's time under LL is that measured under L plus the time that is simulated
more under LL than under L.
"""

from __future__ import annotations

import csv
from importlib.resources import files

from vmsim.engine.run import simulate
from vmsim.machine.caches import Served
from vmsim.record.outcome import VmOutcome
from vmsim.scenario import Scenario
from vmsim.validation.report import Claim, Fit, Report

__all__ = ["UPDATES", "fit_dram", "measured", "predict", "time_of", "walk_cycles", "window_of"]

UPDATES = 2**31  # 2**30 iterations of two updates
_BAND = 0.15


def measured() -> dict[str, dict[str, float]]:
    """Return the measurements by run (L, TL, LL): seconds and 10**9 cycles."""
    text = files("vmsim.validation").joinpath("data/gups_vmitosis21.csv").read_text()
    rows = csv.DictReader(text.splitlines())
    return {row.pop("run"): {name: float(value) for name, value in row.items() if name[0] not in "p"} for row in rows}


def walk_cycles(vm: VmOutcome) -> float:
    """Return the page walk cycles of one update."""
    return (vm.cycles["walk_guest"] + vm.cycles["walk_nested"]) / (vm.counters["accesses"] / 2)


def time_of(vm: VmOutcome) -> float:
    """Return the cycles that an update takes."""
    return (vm.finish - vm.start) / (vm.counters["accesses"] / 2)


def window_of(scenario: Scenario) -> str:
    """Say what a core of a scenario has under way at once."""
    cpu = scenario.cpu
    return f"{cpu.window} instructions, {cpu.walkers} walks, {cpu.fill_buffers} lines"


def fit_dram(scenario: Scenario, target: float) -> tuple[Scenario, VmOutcome, int]:
    """Return the scenario with that latency of DRAM with which native walks take `target` cycles an update.

    The run with it, and the latency, are returned too.
    """
    native = simulate(scenario.with_mode("native")).vms[0]
    from_dram = native.refs[:, :, Served.DRAM].sum() / (native.counters["accesses"] / 2)
    fitted = round(scenario.cpu.memory.cycles + (target - walk_cycles(native)) / from_dram)
    scenario = scenario.replace(**{"host.cpu_override.memory.cycles": fitted})
    return scenario, simulate(scenario.with_mode("native")).vms[0], fitted


def predict(updates: int | None = None) -> Report:
    """Predict the run LL from L.

    Parameters
    ----------
    updates : int, optional
        Simulated updates, in place of the scenario's two million.
    """
    scenario = Scenario.from_toml(files("vmsim.validation").joinpath("gups.toml").read_text(), source="gups.toml")
    if updates:
        scenario = scenario.replace(**{"vm.workload.updates": updates})
    runs = measured()
    target = 1e9 * runs["L"]["dtlb_walk_pending_gigacycles"] / UPDATES
    nominal = scenario.cpu.memory.cycles
    scenario, native, fitted = fit_dram(scenario, target)
    nested = simulate(scenario.with_mode("ept")).vms[0]

    time = {run: 1e9 * row["gigacycles"] / UPDATES for run, row in runs.items()}
    slower = 1 + (time_of(nested) - time_of(native)) / time["L"]
    walks = {run: row["dtlb_walk_pending_gigacycles"] + row["ept_walk_pending_gigacycles"] for run, row in runs.items()}
    per_update = nested.counters["accesses"] / 2
    return Report(
        title="GUPS, 64 GB table, 4 KiB pages: EPT (LL) predicted from native (L)",
        source="vMitosis, ASPLOS 2021 artifact: Xeon Gold 6252, 2.1 GHz",
        fitted={
            "DRAM latency": Fit(
                fitted,
                "cycles",
                "gups_vmitosis21.csv",
                "the walk cycles of run L",
                f"data sheet of {scenario.cpu.name}: {nominal}",
            )
        },
        claims=(
            Claim("walk cycles, LL/L", walk_cycles(nested) / walk_cycles(native), walks["LL"] / walks["L"], _BAND),
            Claim("time, LL/L", slower, runs["LL"]["seconds"] / runs["L"]["seconds"], _BAND),
        ),
        details={
            "L, walk cycles of an update": f"{walk_cycles(native):.0f} simulated, {target:.0f} measured (fitted)",
            "LL, guest dimension": f"{nested.cycles['walk_guest'] / per_update:.0f} simulated, "
            f"{1e9 * runs['LL']['dtlb_walk_pending_gigacycles'] / UPDATES:.0f} measured",
            "LL, nested dimension": f"{nested.cycles['walk_nested'] / per_update:.0f} simulated, "
            f"{1e9 * runs['LL']['ept_walk_pending_gigacycles'] / UPDATES:.0f} measured",
            "under way at once": window_of(scenario),
            "time of an update, L": f"{time_of(native):.0f} simulated, {time['L']:.0f} measured",
            "time of an update, LL": f"{time_of(nested):.0f} simulated, {time['LL']:.0f} measured",
        },
    )
