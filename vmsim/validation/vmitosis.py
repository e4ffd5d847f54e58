"""GUPS with its nested tables on another socket, and with large pages (vMitosis, ASPLOS 2021, artifact).

Two runs give a number each: L (native, 4 KiB pages) the latency of DRAM as a page walk sees it, as in `gups`, and LR
(EPT, the nested tables on another socket than all else) what the way to that socket adds. With these the same machine
runs LL (all on one socket) and TL (native, 2 MiB pages), and large pages under EPT (TLL, TLR). An update's time is that
measured under L plus what is simulated more than under L, or less: misses and walks overlap as the processor's window
lets them (`host.overlap`), so that time has a floor where walks vanish.

The guest's memory, its tables among it, lies on the node of its vCPU. Of RL and RR, with the guest's tables on the
other socket, and of RR with a copy of each nested table where the vCPU runs, no rows are at hand; the way to data is in
none of the times. btree, memcached, redis and xsbench are not
attempted: their programs are not to be had as streams.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import partial
from importlib.resources import files
from typing import Any, Final

from vmsim.engine.run import simulate
from vmsim.record.outcome import VmOutcome
from vmsim.scenario import Scenario
from vmsim.validation.gups import UPDATES, fit_dram, time_of, walk_cycles, window_of
from vmsim.validation.report import NOTHING, Claim, Fit, Report

__all__ = ["measured", "not_attempted", "placed", "predict"]

_BAND: Final = 0.15
_TRIED: Final = 100  # remote cycles of the run that says how many references go there


def measured() -> list[dict[str, str]]:
    """Return the rows of the table."""
    text = files("vmsim.validation").joinpath("data/vmitosis21.csv").read_text(encoding="utf-8")
    return [*csv.DictReader(text.splitlines())]


def not_attempted() -> list[str]:
    """Return the runs that are not predicted."""
    return [f"{row['workload']} {row['config']}" for row in measured() if row["workload"] != "gups"]


def _of_an_update() -> dict[str, dict[str, float]]:
    """Return, by run of GUPS, the cycles of an update: of all, and of walks in either dimension."""
    return {
        row["config"]: {
            "time": float(row["cycles"]) / UPDATES,
            "guest": (float(row["dtlb_load_walk_pending"]) + float(row["dtlb_store_walk_pending"])) / UPDATES,
            "nested": float(row["ept_walk_pending"]) / UPDATES,
        }
        for row in measured()
        if row["workload"] == "gups"
    }


def placed(scenario: Scenario, tables: int | str, remote: int, memory: int = 0) -> Scenario:
    """Return GUPS on the first of two sockets: its nested tables on one of them, and on one its memory and tables."""
    nodes = [{"memory": scenario.host.memory, "cpus": 1}] * 2
    host = {"host.nodes": nodes, "host.remote_cycles": remote}
    numa = {"vm.numa.node": 0, "vm.numa.memory": memory, "vm.numa.tables": tables}
    return scenario.replace(**host, **{"vm.mode": "ept"}, **numa)


def _nested(vm: VmOutcome) -> float:
    return vm.cycles["walk_nested"] / (vm.counters["accesses"] / 2)


def _blind(scenario: Scenario, remote: int) -> dict[str, VmOutcome]:
    """Return runs of which no row is at hand."""
    large = scenario.replace(**{"vm.guest_page": "2M", "vm.host_page": "2M"})
    return {
        "TLL": simulate(placed(large, 0, remote)).vms[0],
        "TLR": simulate(placed(large, 1, remote)).vms[0],
        "RL": simulate(placed(scenario, 0, remote, memory=1)).vms[0],
        "RR": simulate(placed(scenario, 1, remote, memory=1)).vms[0],
        "RR, nested tables copied": simulate(placed(scenario, "replicate", remote, memory=1)).vms[0],
    }


def predict(updates: int | None = None, *, changes: Mapping[str, Any] = NOTHING) -> Report:
    """Predict LL, and of LR and TL what was not fitted.

    Parameters
    ----------
    updates : int, optional
        Simulated updates, in place of the scenario's two million. Then only what has a row is predicted.
    changes : mapping of str to object, optional
        Other values at some keys of the study's scenario, as of `Scenario.replace`. Both fits are made with them.
    """
    text = files("vmsim.validation").joinpath("gups.toml").read_text()
    scenario = Scenario.from_toml(text, source="gups.toml").replace(**changes)
    if updates:
        scenario = scenario.replace(**{"vm.workload.updates": updates})
    runs = _of_an_update()
    walks = {run: row["guest"] + row["nested"] for run, row in runs.items()}
    scenario, native, dram = fit_dram(scenario, walks["L"])

    tried = simulate(placed(scenario, 1, _TRIED)).vms[0]
    from_far = int(tried.figures.array("node_references")[:2, 1].sum()) / (tried.counters["accesses"] / 2)
    remote = round(_TRIED + (walks["LR"] - walk_cycles(tried)) / from_far)
    made = {
        "L": native,
        "LL": simulate(placed(scenario, 0, remote)).vms[0],
        "LR": simulate(placed(scenario, 1, remote)).vms[0],
        "TL": simulate(scenario.replace(**{"vm.mode": "native", "vm.guest_page": "2M"})).vms[0],
    }
    blind = {} if updates else _blind(scenario, remote)
    made |= blind
    time = {run: runs["L"]["time"] + time_of(vm) - time_of(native) for run, vm in made.items()}
    times = partial(_ratio, time, {run: row["time"] for run, row in runs.items()})
    walked = {run: walk_cycles(vm) for run, vm in made.items()}
    cycles = partial(_ratio, walked, walks)
    return Report(
        title="GUPS, 64 GB table: nested tables local (LL) and on another socket (LR), and large pages (TL)",
        source="vMitosis, ASPLOS 2021 artifact: Xeon Gold 6252, 2.1 GHz, 4 sockets",
        fitted={
            "DRAM latency": Fit(dram, "cycles", "vmitosis21.csv", "the walk cycles of gups L"),
            "way to another socket": Fit(remote, "cycles", "vmitosis21.csv", "the walk cycles of gups LR"),
        },
        claims=(
            Claim("walk cycles, LL/L", *cycles("LL"), _BAND),
            Claim("time, LL/L", *times("LL"), _BAND),
            Claim("time, LR/L", *times("LR"), _BAND),
            Claim("walk cycles in nested tables of LR, of an update", _nested(made["LR"]), runs["LR"]["nested"], _BAND),
            Claim("walk cycles, TL/L", *cycles("TL"), _BAND),
            Claim("time, TL/L", *times("TL"), _BAND),
            *(
                Claim(f"{what}, {run}/L", each[run] / each["L"], None, None, note="no row is at hand")
                for run in blind
                for what, each in (("walk cycles", walked), ("time", time))
            ),
        ),
        details={
            "LR, walk cycles of an update": f"{walk_cycles(made['LR']):.0f} simulated, {walks['LR']:.0f} measured "
            "(fitted)",
            "references of an update to the other socket": f"{from_far:.2f}",
            "not attempted": ", ".join(not_attempted()),
            "under way at once": window_of(scenario),
            "times of an update": ", ".join(
                f"{run} {time_of(vm):.0f} simulated, {runs[run]['time']:.0f} measured"
                for run, vm in made.items()
                if run in runs
            ),
        },
    )


def _ratio(predicted: dict[str, float], found: dict[str, float], run: str) -> tuple[float, float]:
    return predicted[run] / predicted["L"], found[run] / found["L"]
