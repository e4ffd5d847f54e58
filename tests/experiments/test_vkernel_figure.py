"""Does the vkernel figure's message hold?"""

from collections.abc import Callable
from itertools import product
from types import SimpleNamespace

import pandas as pd
import pytest

from vmsim.engine.run import simulate
from vmsim.scenario import Scenario, toml

NESTED = {"skylake-x": "ept", "zen4": "npt"}
PROGRAMS = ["sqlite", "cc1", "python", "sort"]
COSTS = ("vkernel_fault", "vkernel_walk_level", "vkernel_reflect", "vkernel_call", "vkernel_remove")


@pytest.fixture(scope="module")
def experiment(figure_of: Callable[[str], SimpleNamespace]) -> SimpleNamespace:
    return figure_of("vkernel")


@pytest.fixture(params=[*NESTED])
def modes(request: pytest.FixtureRequest, experiment: SimpleNamespace) -> pd.DataFrame:
    """Return rows by (workload, mode) of one CPU; its second dimension is called nested, KVM's old shadow 2007."""
    table = experiment.EXPERIMENT.table()
    table.loc[table["preset"] == "kvm-2007", "mode"] = "2007"
    mine = table[table["cpu"] == request.param].replace({"mode": {NESTED[request.param]: "nested"}})
    assert len(mine) == 5 * 5
    made: pd.DataFrame = mine.set_index(["workload", "mode"])
    return made


def test_in_churn_a_vkernel_takes_less_than_half_of_what_shadow_took_and_a_quarter_more_than_it_takes(
    modes: pd.DataFrame,
) -> None:
    churn = modes.loc["churn", "cycles_per_access"]
    assert churn["vkernel"] < churn["2007"] / 2
    assert 1.2 < churn["vkernel"] / churn["shadow"] < 1.27
    assert churn["vkernel"] > 3 * churn["nested"]
    assert churn["nested"] > churn["native"]


@pytest.mark.parametrize("workload", PROGRAMS)
def test_real_programs_cost_a_little_more_as_a_vkernel_than_in_shadow(modes: pd.DataFrame, workload: str) -> None:
    cycles = modes.loc[workload, "cycles_per_access"]
    assert 1.08 < cycles["vkernel"] / cycles["shadow"] < 1.16
    drawn = modes.loc[workload, ["translation_cycles", "management_cycles"]].sum(axis=1)
    assert 1.17 < drawn["vkernel"] / drawn["shadow"] < 1.4
    assert cycles["vkernel"] == pytest.approx(cycles["2007"], rel=0.12)
    assert cycles["nested"] < 0.9 * cycles[["vkernel", "shadow"]].min()


@pytest.mark.parametrize("workload", PROGRAMS)
def test_system_calls_find_the_tlb_empty(modes: pd.DataFrame, workload: str) -> None:
    misses = modes.loc[workload, "l2_tlb_misses"]
    assert 3 * misses["shadow"] < misses["vkernel"] <= 27 * misses["native"]


def test_management_is_the_most_of_it_not_translation(modes: pd.DataFrame) -> None:
    mine = modes.xs("vkernel", level="mode")
    assert (mine["management_cycles"] > 5 * mine["translation_cycles"]).all()
    assert (mine["walk_nested_cycles"] == 0).all()


def test_blocks_that_a_guest_unmaps_by_a_flush_of_all_speak_against_a_vkernel(experiment: SimpleNamespace) -> None:
    """Of up to 33 pages Linux invalidates each (tlb_single_page_flush_ceiling); the experiment's blocks have 32."""
    tables = toml.parse(experiment.EXPERIMENT.sweep.scenario.to_toml(), "scenario")
    churn = {"host": tables["host"], "vm": tables["vm"][:1]}
    made = {}
    ways = {"vkernel": ("vkernel", "kvm"), "shadow": ("shadow", "kvm"), "2007": ("shadow", "kvm-2007")}
    for burst, way in product(("128KiB", "256KiB"), ways):
        mode, preset = ways[way]
        what = {"vm.workload.burst": burst, "vm.workload.rounds": 200, "vm.mode": mode, "vm.shadow.preset": preset}
        made[burst, way] = sum(simulate(Scenario.from_tables(churn).replace(**what)).vms[0].cycles.values())
    assert made["128KiB", "shadow"] < made["128KiB", "vkernel"] < made["128KiB", "2007"]
    assert made["256KiB", "vkernel"] > 2 * max(made["256KiB", "shadow"], made["256KiB", "2007"])


@pytest.mark.parametrize(
    ("times", "order"),
    [(0.5, ["ept", "vkernel", "kvm", "kvm-2007"]), (2, ["ept", "kvm", "vkernel", "kvm-2007"])],
)
def test_in_churn_what_is_guessed_decides_between_vkernel_and_shadow_and_nothing_else(
    experiment: SimpleNamespace, times: float, order: list[str]
) -> None:
    base = Scenario.load(experiment.EXPERIMENT.folder / "scenario.toml")
    churn = base.model_copy(update={"vm": base.vm[:1]}).replace(
        **{"host.cores": 1, "vm.memory": "16MiB", "vm.workload.footprint": "4MiB", "vm.workload.rounds": 100}
    )
    guesses = {f"host.cpu_override.cost.{name}": round(times * getattr(churn.cpu.cost, name)) for name in COSTS}
    totals = {}
    for way in order:
        keys = {"vm.mode": "shadow", "vm.shadow.preset": way} if way.startswith("kvm") else {"vm.mode": way}
        totals[way] = sum(simulate(churn.replace(**guesses, **keys)).vms[0].cycles.values())
    assert sorted(totals, key=totals.__getitem__) == order
