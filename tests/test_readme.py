"""Does the README tell the truth?"""

import re
import runpy
from pathlib import Path

import pytest

from vmsim.cli import VERBS
from vmsim.scenario import Scenario
from vmsim.validation.studies import STUDIES, known_misses
from vmsim.workloads.trace import bundled

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_its_scenario_is_one() -> None:
    toml = README.partition("```toml\n")[2].partition("```")[0]
    scenario = Scenario.from_toml(toml)
    assert [vm.name for vm in scenario.vms] == ["db-0", "db-1", "cache"]
    scenario.replace(**{"vm.host_page": "2M"})


def test_its_commands_exist() -> None:
    assert set(re.findall(r"^    vmsim (\w+)", README, re.MULTILINE)) <= set(VERBS)
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"^    make (\w+)", README, re.MULTILINE)) <= set(targets)


def test_the_traces_it_names_are_the_bundled_ones() -> None:
    named = README.partition("# bundled: ")[2].partition(", and each by cache lines")[0].split(", ")
    assert sorted(named + [f"{name}-lines" for name in named]) == sorted(bundled())


PAGES = ["README.md", "CONTRIBUTING.md", *(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/**/*.md"))]


@pytest.mark.parametrize("page", PAGES)
def test_no_link_leads_nowhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text()):
        if "://" not in target:
            assert ((ROOT / page).parent / target).exists(), target


def test_its_result_is_the_experiments() -> None:
    folder = runpy.run_path(str(ROOT / "experiments/reclaimed-page/figure.py"))
    table = folder["data"]().set_index(["vcpus", "paging"])
    costs = table[["host", "kicks", "return", "walks"]].sum(axis=1) / 1000
    heads = README.partition("\n| | native | EPT |")[2].partition("\n")[0]
    modes = ["native", "ept", *heads.lower().replace("|", "").split()]
    for vcpus, name in ((1, "one vCPU"), (4, "four vCPUs")):
        cells = README.partition(f"\n| {name} |")[2].partition("\n")[0].strip(" |").split(" | ")
        assert dict(zip(modes, cells, strict=True)) == {mode: f"{costs[vcpus, mode]:.1f}" for mode in modes}


def test_what_placement_does_is_the_experiments() -> None:
    table = runpy.run_path(str(ROOT / "experiments/frame-placement/figure.py"))["data"]()
    rows = table.set_index(["paging", "place"])[["mean", "low", "high"]]
    text = " ".join(README.partition("Where frames lie moves")[2].split())
    places = ["by address", "tables scattered", "pages scattered"]
    for place in places:
        mean, low, high = (f"{each:.2g}" for each in rows.loc["ept", place])
        assert f"{mean} % ({low} to {high})" in text.replace(" longer", "")
    natively = [f"{rows.loc['native', place]['mean']:.1f}" for place in places]
    assert "natively {}, {} and {} %".format(*natively) in text


STUDIES_OF = {
    "load latency": ["instlat"],
    "two-dimensional walks": ["bhargava"],
    "walks of eight programs": ["agile"],
    "balloons, equal pages": ["balloon-steps", "waldspurger"],
    "GUPS under EPT": ["gups", "vmitosis"],
    "single operations": ["adams-agesen"],
    "a lock that faults take": ["dirty-lock", "stage2-parallel", "reporting"],
    "pre-copy of guests": ["live-migration", "migrate-pages"],
    "gains by multi-generational LRU": ["mglru"],
    "interrupts between vCPUs": ["ipi-guest", "shootdown", "hyperalloc"],
    "writes by 96 vCPUs": ["eager-split", "uffd-paging"],
    "processes of one guest": ["pvm-faults", "pv-flush"],
}


def test_its_table_of_predictions_adds_up_and_misses_what_is_known_to_miss() -> None:
    agree, attempted = re.findall(r"predicted: (\d+) of (\d+) agree", README)[0]
    rows = [(int(one), int(of), what) for one, of, what in re.findall(r"^\| (\d+) \| (\d+) \| (.*) \|$", README, re.M)]
    assert (int(agree), int(attempted)) == (sum(one for one, _, _ in rows), sum(of for _, of, _ in rows))
    for (one, of, what), (start, studies) in zip(rows, STUDIES_OF.items(), strict=True):
        assert what.startswith(start)
        assert of - one == sum(len(known_misses(study)) for study in studies), what
    told = {study for studies in STUDIES_OF.values() for study in studies}
    assert not [study for study in STUDIES if study not in told and known_misses(study)]
