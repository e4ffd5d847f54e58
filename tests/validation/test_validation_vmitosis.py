"""Is GUPS placed as vMitosis placed it, and is every row of the table predicted or said not to be?"""

from __future__ import annotations

from importlib.resources import files

from vmsim.engine.simulation import Simulation
from vmsim.scenario import Scenario
from vmsim.validation import vmitosis


def test_every_row_is_predicted_fitted_or_not_attempted() -> None:
    rows = [f"{row['workload']} {row['config']}" for row in vmitosis.measured()]
    assert sorted(rows) == sorted([*vmitosis.not_attempted(), "gups L", "gups LL", "gups LR", "gups TL"])


def test_nested_tables_are_apart_and_pages_are_not() -> None:
    text = files("vmsim.validation").joinpath("gups.toml").read_text()
    small = {"host.memory": "64MiB", "vm.memory": "16MiB", "vm.workload.footprint": "8MiB", "vm.workload.updates": 9}
    scenario = Scenario.from_toml(text).replace(**small)
    for node, (near, far) in enumerate([(11, 0), (0, 11)]):  # 8 tables of level 1, one of each of three above
        memory = Simulation(vmitosis.placed(scenario, node, 100)).run().vms[0].memory
        assert memory["page_node_1"] == 0
        assert (memory["table_node_0"], memory["table_node_1"]) == (near, far)


def test_copies_of_nested_tables_are_where_the_vcpu_runs() -> None:
    text = files("vmsim.validation").joinpath("gups.toml").read_text()
    small = {"host.memory": "64MiB", "vm.memory": "16MiB", "vm.workload.footprint": "8MiB", "vm.workload.updates": 9}
    scenario = vmitosis.placed(Scenario.from_toml(text).replace(**small), "replicate", 100, memory=1)
    vm = Simulation(scenario).run().vms[0]
    assert vm.memory["page_node_0"] == 0
    assert (vm.memory["table_node_0"], vm.memory["table_node_1"]) == (11, 11)
    assert vm.figures.array("node_references")[1, 1] == 0 < vm.figures.array("node_references")[0, 1]
