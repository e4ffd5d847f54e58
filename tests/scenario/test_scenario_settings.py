"""Do dotted keys reach what they name, from Python and from --set, and nothing else?"""

import pytest

from vmsim.base.errors import InputError
from vmsim.scenario import Gups, Scenario, Uniform, parse_settings


@pytest.fixture
def scenario(sample: str) -> Scenario:
    return Scenario.from_toml(sample, folder="/somewhere")


def test_a_key_of_vm_is_for_every_vm(scenario: Scenario) -> None:
    changed = scenario.replace(**{"vm.memory": "4GiB"})
    assert {vm.memory for vm in changed.vms} == {4 << 30}


def test_an_index_or_a_name_is_for_one_group(scenario: Scenario) -> None:
    for key in ("vm.0.memory", "vm.db.memory"):
        changed = scenario.replace(**{key: "4GiB"})
        assert [vm.memory >> 30 for vm in changed.vms] == [4, 4, 1]


def test_the_original_is_left_alone(scenario: Scenario) -> None:
    before = scenario.to_toml()
    changed = scenario.replace(**{"host.pool.min": 1, "vm.db.count": 1})
    assert scenario.to_toml() == before
    assert changed.host.pool.min == 1
    assert changed.folder == scenario.folder


def test_none_gives_a_key_its_default(scenario: Scenario) -> None:
    changed = scenario.replace(**{"host.quantum": None, "vm.web.pool": None, "host.cores": None})
    assert changed.host.cores == 1
    assert changed.vm[1].pool is None


def test_a_new_kind_of_workload_keeps_the_keys_that_both_have(scenario: Scenario) -> None:
    changed = scenario.replace(**{"vm.db.workload.updates": 9, "vm.db.workload.kind": "gups"})
    assert changed.vm[0].workload == Gups(kind="gups", footprint=1 << 30, updates=9)
    back = changed.replace(**{"vm.db.workload.kind": "uniform", "vm.db.workload.accesses": 1000})
    assert isinstance(back.vm[0].workload, Uniform)
    assert back == scenario


def test_figures_of_the_cpu_can_be_set_one_by_one(scenario: Scenario) -> None:
    changed = scenario.replace(**{'host.cpu_override.tlb.l2."4K".entries': 3072, "host.cpu_override.memory.cycles": 1})
    array = changed.cpu.tlb.l2["4K"]
    assert array is not None
    assert (array.entries, array.ways, changed.cpu.memory.cycles) == (3072, 12, 1)
    assert changed.cpu.name == "skylake-x"
    assert Scenario.from_toml(changed.to_toml()) == changed


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("host.pool.mni", "host.pool.mni: unknown key. Did you mean 'min'?"),
        ("hots.cores", "hots: unknown key. Did you mean 'host'?"),
        ("vm.mdoe", "'mdoe' is neither a key of vm, nor a VM. Did you mean 'mode'?"),
        ("vm.wbe.mode", "'wbe' is neither a key of vm, nor a VM. Did you mean 'web'?"),
        ("vm.2.mode", "'2' is neither"),
        ("vm.db", "expected a key after it"),
        ("seed.x", "seed is not a table"),
        ("vm.db.workload.acesses", "vm.0.workload.acesses (db): unknown key. Did you mean 'accesses'?"),
        ("", "unknown key"),
    ],
)
def test_unknown_keys_are_refused_with_the_nearest(scenario: Scenario, key: str, words: str) -> None:
    with pytest.raises(InputError) as error:
        scenario.replace(**{key: 1})
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("vm.mode=npt", "npt"),
        ('vm.mode="npt"', "npt"),
        ("host.cores=4", 4),
        ("host.data_caches = true", True),
        ("vm.workload.writes=0.25", 0.25),
        ("host.memory=2GiB", "2GiB"),
        ("vm.workload.base=0x1000", 4096),
        ("warmup=10%", "10%"),
        ("vm.pool={min=3}", {"min": 3}),
        ("vm.workload.path=a=b", "a=b"),
        ("vm.workload.path=", ""),
        ("vm.workload.path=1\nx=2", "1\nx=2"),
    ],
)
def test_a_value_is_toml_or_else_text(text: str, value: object) -> None:
    assert list(parse_settings([text]).values()) == [value]


@pytest.mark.parametrize("texts", [["vm.mode"], ["=3"], ["seed=1", "seed=2"]])
def test_what_is_no_setting_is_refused(texts: list[str]) -> None:
    with pytest.raises(InputError, match="--set"):
        parse_settings(texts)
