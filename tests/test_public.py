"""Is what the command line does there in Python as well?"""

from pathlib import Path

import pytest

import vmsim
from tests.simulation.small import scenario, vm

SMALL = scenario(vm("left"), vm("right"))


def test_every_public_name_is_there_and_modules_do_not_hide_functions() -> None:
    import vmsim.lookups
    import vmsim.observe.anatomy

    for name in vmsim.__all__:
        assert callable(getattr(vmsim, name)) or name == "__version__"
    assert {*vmsim.__all__} <= {*dir(vmsim)}


def test_a_scenario_is_taken_as_a_dictionary_with_other_values_and_another_seed() -> None:
    tables = SMALL.model_dump(exclude_none=True)
    for made in (vmsim.run(tables, seed=7, **{"vm.memory": "8MiB"}), vmsim.run(SMALL, seed=7, **{"vm.memory": "8MiB"})):
        assert made.scenario.seed == 7
        assert {each.memory for each in made.scenario.vms} == {8 << 20}
    assert vmsim.run(tables).scenario == SMALL
    with pytest.raises(vmsim.InputError, match="vm"):
        vmsim.run({"host": {}})


def test_a_walk_is_explained_with_a_grid() -> None:
    cold, warm = walks = vmsim.explain()
    assert (cold.count, warm.count) == (24, 1)  # 5 * 5 - 1: SDM, four levels on four
    assert walks._repr_html_().count("<tr>") == 2 + 5 + 1  # headings; gL4 to gL1 and the data page; the warm one's
    with pytest.raises(vmsim.InputError, match="'zen5'"):
        vmsim.explain("npt", cpu="zen")


def test_presets_are_listed_and_looked_up() -> None:
    assert {"skylake-x", "zen4"} <= {*vmsim.cpus()["name"]}
    figures = vmsim.cpus("skylake-x").set_index("key")
    assert figures.loc["tlb.l1.4K.entries", "value"] == 64  # Intel's optimization manual
    assert figures["source"].str.len().min() > 0


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    run, both = vmsim.run(SMALL), vmsim.compare(SMALL, ["native", "ept"])
    run.save(tmp_path / "run")
    both.save(tmp_path / "both")
    assert vmsim.load(tmp_path / "run").summary.equals(run.summary)
    assert vmsim.load(tmp_path / "both").exits.equals(both.exits)
    with pytest.raises(vmsim.InputError, match="nowhere"):
        vmsim.load(tmp_path / "nowhere")


def test_a_scenario_is_shown_in_a_notebook() -> None:
    html = SMALL._repr_html_()
    assert all(word in html for word in ("yardstick", "16MiB", "left", "right", "ept", "sequential", "<details>"))
    assert "&quot;left&quot;" in html  # the TOML is text
