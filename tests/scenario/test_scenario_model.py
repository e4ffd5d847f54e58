"""Does a scenario say exactly what its file says, survive writing, and know what decides its results?"""

import json
import os
import pickle
import re
import subprocess
import sys
from math import isqrt
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmsim.base.errors import InputError
from vmsim.scenario import Cpu, Pool, Scenario, Trace, Uniform
from vmsim.scenario.cpu_files import load_cpu

KIB, MIB, GIB = 2**10, 2**20, 2**30


def test_values_are_those_of_the_file(sample: str) -> None:
    scenario = Scenario.from_toml(sample)
    assert (scenario.seed, scenario.host.cores, scenario.host.memory) == (7, 2, 16 * GIB)
    assert scenario.host.pool == Pool(min=64, max=1024, batch=256)
    assert scenario.vm[0].workload == Uniform(kind="uniform", footprint=GIB, accesses=1000)
    assert scenario.quantum == 3_300_000  # 1 ms at 3.3 GHz


def test_groups_are_expanded_by_count_with_unique_names(sample: str) -> None:
    vms = Scenario.from_toml(sample).vms
    assert [(vm.name, vm.index, vm.group) for vm in vms] == [("db-0", 0, "db"), ("db-1", 1, "db"), ("web", 2, "web")]
    assert (vms[0].guest_order, vms[0].host_order, vms[0].pages) == (0, 9, 2 * GIB // 4096)
    assert vms[2].start == 6_600_000
    assert isinstance(vms[2].workload, Trace)


def test_the_pool_of_a_vm_overrides_that_of_the_host_key_by_key(sample: str) -> None:
    db, _, web = Scenario.from_toml(sample).vms
    assert db.pool == Pool(min=128, max=1024, batch=256)
    assert web.pool == Pool(min=64, max=1024, batch=256)


def test_a_scenario_cannot_be_changed(sample: str) -> None:
    scenario = Scenario.from_toml(sample)
    for table, key in ((scenario, "seed"), (scenario.host, "cores"), (scenario.vms[0], "name"), (scenario.cpu, "name")):
        with pytest.raises((ValueError, AttributeError)):
            setattr(table, key, 5)


def test_a_scenario_survives_pickling(sample: str) -> None:
    scenario = Scenario.from_toml(sample)
    assert scenario.vms  # so that what is cached travels too
    again = pickle.loads(pickle.dumps(scenario))
    assert again == scenario
    assert again.canonical() == scenario.canonical()
    assert list(again.cpu.figures()) == list(scenario.cpu.figures())


@pytest.mark.parametrize("kib", [1 << 20, 1 << 24, 4096, 1 << 32])
def test_watermarks_follow_linux(kib: int) -> None:
    text = f'host.memory = "{kib}KiB"\nhost.pool.max=64\n[[vm]]\nname = "a"\nmemory = "1MiB"\nmode = "ept"\n'
    text += 'workload = {kind = "uniform", footprint = "4KiB", accesses = 1}\n'
    lowest = max(128, min(isqrt(16 * kib), 262144)) // 4
    assert Scenario.from_toml(text).watermarks == (lowest, lowest * 5 // 4, lowest * 6 // 4)


def test_watermarks_follow_the_published_examples(sample: str) -> None:
    for memory, kib in ((1 << 20, 4096), (1 << 24, 16384)):  # linux_watermarks.csv
        scenario = Scenario.from_toml(sample).replace(**{"host.memory": f"{memory}KiB"})
        assert scenario.watermarks.min * 4 == kib


def test_given_watermarks_win(sample: str) -> None:
    scenario = Scenario.from_toml(sample).replace(**{"host.watermarks": {"min": "40MiB", "high": "90MiB"}})
    assert scenario.watermarks == (40 * 256, 50 * 256, 90 * 256)


@pytest.mark.parametrize(
    ("warmup", "accesses", "left_out"),
    [("10%", 1000, 100), ("0.1%", 10**18 + 999, 10**15), (250, 1000, 250), (250, 100, 100), ("0%", 5, 0), (0, 5, 0)],
)
def test_warmup_is_an_exact_share_or_a_count(sample: str, warmup: object, accesses: int, left_out: int) -> None:
    assert Scenario.from_toml(sample).replace(warmup=warmup).warmup_accesses(accesses) == left_out


def test_mode_of_every_vm_can_be_changed_at_once(sample: str) -> None:
    scenario = Scenario.from_toml(sample)
    assert {vm.mode for vm in scenario.with_mode("native").vms} == {"native"}  # db has a host_page of its own
    assert {vm.mode for vm in scenario.with_mode("ept").vms} == {"ept"}


# ---- identity


def test_two_ways_of_writing_the_same_are_one_scenario_to_hash(sample: str) -> None:
    scenario = Scenario.from_toml(sample)
    other = sample.replace('"2GiB"', str(2 * GIB)).replace('"1ms"', '"3300000cycles"').replace('"10%"', '"10.0%"')
    assert Scenario.from_toml(other).canonical() == scenario.canonical()
    head, db, web = sample.split("[[vm]]")
    one_by_one = db.replace("count = 2\n", "").replace('"db"', '"{}"')
    expanded = "[[vm]]".join([head, *(one_by_one.format(name) for name in ("db-0", "db-1")), web])
    assert Scenario.from_toml(expanded).canonical() == scenario.canonical()


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 8},
        {"warmup": 3},
        {"host.cores": 3},
        {"host.quantum": "2ms"},
        {"host.horizon": "2us"},
        {"host.samples": "2us"},
        {"host.pool.min": 65},
        {"host.data_caches": True},
        {"host.what_if": True},
        {"host.watermarks.min": "20MiB"},
        {"host.cpu": "cascade-lake"},
        {"host.cpu_override.cost.vm_exit": 1},
        {"vm.db.count": 3},
        {"vm.db.workload.writes": 0.5},
        {"vm.web.workload.repeat": 5},
        {"vm.db.populate": "eager"},
        {"vm.db.start": "1cycle"},
        {"vm.db.pool.batch": 2},
    ],
)
def test_whatever_changes_results_changes_the_text_to_hash(sample: str, change: dict[str, object]) -> None:
    scenario = Scenario.from_toml(sample)
    assert scenario.replace(**change).canonical() != scenario.canonical()
    assert scenario.replace(**change) != scenario


def test_the_folder_is_no_part_of_identity(sample: str) -> None:
    here, there = Scenario.from_toml(sample, folder="/a"), Scenario.from_toml(sample, folder="/b")
    assert here == there
    assert hash(here) == hash(there)
    assert here.canonical() == there.canonical()
    assert there.folder == Path("/b")


def test_the_text_to_hash_does_not_depend_on_the_hash_seed(sample: str) -> None:
    code = f"from vmsim.scenario import Scenario; print(Scenario.from_toml({sample!r}).canonical())"
    texts = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert texts == {Scenario.from_toml(sample).canonical() + "\n"}
    assert json.loads(texts.pop())["vms"][0]["memory"] == 2 * GIB


# ---- writing

sizes = st.integers(1, 2**12).map(lambda pages: pages * 4096)
generator = st.fixed_dictionaries({"footprint": st.just(4096) | st.just("4KiB")}, optional={"base": st.just(2**30)})
accesses = st.fixed_dictionaries(
    {"accesses": st.integers(1, 10**12)},
    optional={"writes": st.floats(0, 1), "compute": st.integers(0, 99)},
)
extra = st.one_of(
    st.just({"kind": "uniform"}),
    st.fixed_dictionaries({"kind": st.just("zipf"), "exponent": st.floats(0, 10)}),
    st.fixed_dictionaries({"kind": st.just("sequential"), "stride": st.integers(1, 4096)}),
    st.fixed_dictionaries({"kind": st.just("chase"), "order": st.sampled_from(["full", "page"])}),
    st.fixed_dictionaries(
        {"kind": st.just("working-set"), "window": st.just(64), "phase": st.integers(1, 9), "step": st.just(8)}
    ),
)
workloads = st.builds(lambda a, b, c: a | b | c, generator, accesses, extra) | st.fixed_dictionaries(
    {
        "kind": st.just("trace"),
        "path": st.text(min_size=1).filter(lambda t: t.isprintable()),
        "repeat": st.integers(1, 9),
    }
)
durations = st.builds(lambda n, unit: f"{n}{unit}", st.integers(1, 10**6), st.sampled_from(["s", "us", "ns", "cycles"]))
groups = st.lists(
    st.fixed_dictionaries(
        {"memory": sizes, "mode": st.sampled_from(["ept", "npt"]), "workload": workloads},
        optional={
            "count": st.integers(1, 5),
            "start": durations,
            "populate": st.sampled_from(["lazy", "eager"]),
            "guest_levels": st.sampled_from([4, 5]),
            "pool": st.fixed_dictionaries({"max": st.integers(10**4, 2 * 10**4)}),
        },
    ),
    min_size=1,
    max_size=3,
)
hosts = st.fixed_dictionaries(
    {"cpu": st.just("yardstick")},
    optional={
        "cores": st.integers(1, 1024),
        "quantum": durations,
        "horizon": durations,
        "samples": durations,
        "data_caches": st.booleans(),
        "cpu_override": st.just({"tlb": {"l2": {"4K": {"entries": 2048, "ways": 16}}}, "levels": [5, 4]}),
        "watermarks": st.fixed_dictionaries({"min": sizes}),
    },
)
scenarios = st.builds(
    lambda seed, warmup, host, vms: {
        "seed": seed,
        "warmup": warmup,
        "host": host,
        "vm": [{"name": f"vm_{number}", **vm} for number, vm in enumerate(vms)],
    },
    st.integers(0, 2**63 - 1),
    st.integers(0, 10**6) | st.sampled_from(["5%", "0.25%", "99%", "07%", "00.50%"]),
    hosts,
    groups,
)


@given(scenarios)
@settings(max_examples=60, deadline=None)
def test_what_is_written_reads_back_equal(tables: dict[str, object]) -> None:
    import tomli_w

    scenario = Scenario.from_toml(tomli_w.dumps(tables))
    again = Scenario.from_toml(scenario.to_toml())
    assert again == scenario
    assert hash(again) == hash(scenario)
    assert again.canonical() == scenario.canonical()
    assert again.to_toml() == scenario.to_toml()


@given(scenarios)
@settings(max_examples=20, deadline=None)
def test_what_is_written_obeys_the_schema(tables: dict[str, object]) -> None:
    import tomllib

    import tomli_w

    obeyed = jsonschema.Draft202012Validator(Scenario.json_schema()).is_valid
    assert obeyed(tables)
    assert obeyed(tomllib.loads(Scenario.from_toml(tomli_w.dumps(tables)).to_toml()))


def test_a_saved_scenario_finds_its_traces_from_the_new_folder(sample: str, tmp_path: Path) -> None:
    (tmp_path / "web.vmtrace").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "a.toml").write_text(sample)
    Scenario.load(tmp_path / "a.toml").save(tmp_path / "other" / "b.toml")
    moved = Scenario.load(tmp_path / "other" / "b.toml")
    workload = moved.vm[1].workload
    assert isinstance(workload, Trace)
    assert (moved.folder / workload.path).resolve() == tmp_path / "web.vmtrace"
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["b.toml"]


def test_a_saved_scenario_finds_the_histograms_of_its_swap_device(sample: str, tmp_path: Path) -> None:
    (tmp_path / "my disk.csv").write_text("from_us,to_us,count\n1,2,3\n")
    (tmp_path / "other").mkdir()
    scenario = Scenario.from_toml(sample, folder=tmp_path)
    swap = {"host.swap.device": "sata", "host.swap.read": "file my disk.csv", "host.swap.write": "constant 1us"}
    scenario.replace(**swap).save(tmp_path / "other" / "b.toml")
    moved = Scenario.load(tmp_path / "other" / "b.toml").host.part("swap")
    assert (moved.read, moved.write) == ("file ../my disk.csv", "constant 1us")


def test_saving_beside_the_traces_changes_no_path(sample: str, tmp_path: Path) -> None:
    (tmp_path / "web.vmtrace").touch()
    scenario = Scenario.from_toml(sample, folder=tmp_path)
    scenario.save(tmp_path / "b.toml")
    assert Scenario.load(tmp_path / "b.toml") == scenario


def test_saving_where_nothing_can_be_written_leaves_nothing(sample: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        Scenario.from_toml(sample).save(tmp_path / "missing" / "b.toml")
    assert list(tmp_path.iterdir()) == []


# ---- the schema


def test_the_schema_is_a_schema_and_accepts_the_sample(sample: str) -> None:
    import tomllib

    schema = Scenario.json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(tomllib.loads(sample), schema)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('mode = "ept"', 'mode = "nested"'),
        ("cores = 2", "cores = 0"),
        ("min = 64", "mn = 64"),
        ('"2GiB"', '"2Gb"'),
        ('kind = "uniform"', ""),
        ('kind = "uniform"', 'kind = "uniformly"'),
        ('quantum = "1ms"', 'quantum = "1 hour"'),
        ('guest_page = "4K"', 'guest_page = "8K"'),
    ],
)
def test_the_schema_rejects_what_the_model_rejects(sample: str, old: str, new: str) -> None:
    import tomllib

    broken = sample.replace(old, new, 1)
    assert broken != sample
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(tomllib.loads(broken), Scenario.json_schema())
    with pytest.raises(InputError):
        Scenario.from_toml(broken)


# ---- the documentation

DOCS = Path(__file__).parents[2] / "docs/reference"


def _examples(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def test_the_documented_example_is_a_scenario() -> None:
    (text,) = _examples("scenario.md", "toml")
    assert [vm.name for vm in Scenario.from_toml(text).vms] == ["db-0", "db-1", "table"]


def test_the_documented_cpu_file_loads(tmp_path: Path) -> None:
    (text,) = _examples("cpus.md", "toml")
    (tmp_path / "my-server.toml").write_text(text)
    assert load_cpu("my-server.toml", folder=tmp_path).memory.cycles == 190


@pytest.mark.parametrize(("page", "model"), [("scenario.md", Scenario), ("cpus.md", Cpu)])
def test_every_key_is_documented(page: str, model: type[Scenario] | type[Cpu]) -> None:
    text = (DOCS / page).read_text()
    schema = model.model_json_schema()
    tables = [schema, *schema["$defs"].values()]
    missing = {key for table in tables for key in table.get("properties", {}) if not re.search(rf"\b{key}\b", text)}
    assert not missing
