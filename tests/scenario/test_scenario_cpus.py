"""Do the CPU presets load, name the source of each figure, and equal the published geometry and the yardstick?"""

import csv
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from vmsim.base.errors import InputError
from vmsim.cli.cpus import command as cpus_command
from vmsim.cli.schema import command as schema_command
from vmsim.machine.replacement import policy_of
from vmsim.scenario import Scenario, cpu_names
from vmsim.scenario.cpu import CONFIDENCES, Array, PrefixPwc, TlbLevel
from vmsim.scenario.cpu_files import apply_override, load_cpu
from vmsim.scenario.replacement import NAMES

ROOT = Path(__file__).parents[2]
GEOMETRY = {row["preset"]: row for row in csv.DictReader((ROOT / "vmsim/validation/data/cpu_geometry.csv").open())}
INTEL = {
    "p4-672",
    "core2",
    "nehalem",
    "sandy-bridge",
    "haswell",
    "skylake-x",
    "cascade-lake",
    "ice-lake",
    "sapphire-rapids",
}
AMD = {"k10", "zen1", "zen2", "zen3", "zen4", "zen5"}
REQUIRED = INTEL | AMD | {"yardstick"}
# What the table has from CPUID, which cannot say 24 or 12 ways: 3072 entries in 8 ways would be 384 sets. The presets
# have the manuals' ways, for both page sizes. Ice Lake has two arrays that 4K pages use both; the model has one.
CPUID_CANNOT_SAY = {
    "zen4": {"4K": (3072, 24), "2M": (3072, 24)},
    "zen1": {"4K": (1536, 12), "2M": (1536, 12)},
    "zen2": {"2M": (2048, 8)},
    "ice-lake": {"4K": (2 * 1024, 2 * 8), "2M": (2 * 1024, 2 * 8)},
}


def test_the_presets_are_there() -> None:
    assert set(cpu_names()) >= REQUIRED
    assert "common-costs" not in cpu_names()


@pytest.mark.parametrize("name", cpu_names())
def test_every_figure_has_a_source_and_a_confidence(name: str) -> None:
    figures = list(load_cpu(name).figures())
    assert len(figures) > 40
    for figure in figures:
        assert len(figure.source) > 3, figure
        assert figure.confidence in CONFIDENCES, figure


@pytest.mark.parametrize("name", cpu_names())
def test_the_figures_are_what_the_machine_gets(name: str) -> None:
    cpu = load_cpu(name)
    assert cpu.name == name
    by_key = {figure.key: figure.value for figure in cpu.figures()}
    for key in type(cpu.cost).model_fields:
        assert by_key[f"cost.{key}"] == getattr(cpu.cost, key)
    assert by_key["memory.cycles"] == cpu.memory.cycles
    for level, arrays in (("l1", cpu.tlb.l1), ("l2", cpu.tlb.l2)):
        four = arrays["4K"]
        if four is None:  # one level of TLB
            assert (name, level) == ("p4-672", "l2")
            continue
        assert (by_key[f"tlb.{level}.4K.entries"], by_key[f"tlb.{level}.4K.ways"]) == (four.entries, four.ways)


def _hyperalloc() -> dict[tuple[str, str], float]:
    """Return the cycles of a page by mechanism and first word of the operation: of 4K, with virtio-mem of 2M."""
    rows = csv.DictReader((ROOT / "vmsim/validation/data/hyperalloc25_inflate.csv").open())
    size = {"virtio-balloon 4K": "ns_per_4k", "virtio-mem": "ns_per_2m"}
    return {
        (row["mechanism"], row["operation"].split()[0].strip(":")): 2.1 * float(row[size[row["mechanism"]]])
        for row in rows
    }


@pytest.mark.parametrize(("mechanism", "order"), [("virtio-balloon 4K", 0), ("virtio-mem", 9)])
def test_a_violation_with_its_host_fault_takes_what_was_measured(mechanism: str, order: int) -> None:
    """HyperAlloc: memory allocated and touched that the host has taken before, less the same once it is backed."""
    measured, cost = _hyperalloc(), load_cpu("cascade-lake").cost
    parts = cost.vm_exit + cost.violation - cost.violation_pool + cost.host_fault + cost.zero(order)
    assert parts == pytest.approx(measured[mechanism, "install"] - measured[mechanism, "second"], rel=0.001)


def test_a_page_that_the_host_backs_takes_an_allocation_and_a_line_from_memory() -> None:
    cpu = load_cpu("cascade-lake")
    assert 512 * (cpu.cost.table_page + cpu.memory.cycles) == pytest.approx(
        _hyperalloc()["virtio-mem", "second"], rel=0.002
    )


def test_a_page_taken_by_a_balloon_is_zapped_in_the_share_of_it_that_madvise_has() -> None:
    rows = csv.DictReader((ROOT / "vmsim/validation/data/balloon_steps17.csv").open())
    share = next(float(row["share_pct"]) for row in rows if row["step"] == "madvise") / 100
    zap = load_cpu("cascade-lake").cost.host_zap
    assert zap == pytest.approx(share * _hyperalloc()["virtio-balloon 4K", "reclaim"], rel=0.001)


def test_the_software_of_an_exit_is_a_hypercall_without_the_hardwares_part() -> None:
    rows = csv.DictReader((ROOT / "vmsim/validation/data/exit_costs.csv").open())
    call = next(int(row["cycles"]) for row in rows if row["what"].startswith("VMCALL"))
    cost = load_cpu("cascade-lake").cost
    assert cost.vm_exit + cost.violation_resume == call == cost.grant_fixed == cost.reclaim_fixed


def test_huge_pages_take_as_long_to_clear_as_their_small_ones() -> None:
    cost = load_cpu("zen4").cost
    assert cost.zero(9) == 512 * cost.zero(0) == 512 * cost.host_zero


def _array(text: str) -> tuple[int, int]:
    """Read "512/4", "48 FA" or "4" (fully associative) as entries and ways."""
    entries, ways = re.match(r"(\d+)(?:/(\d+))?", text).groups()  # type: ignore[union-attr]
    return int(entries), int(ways or entries)


def _geometry(level: TlbLevel, page: str) -> tuple[int, int] | None:
    array = level[page]  # type: ignore[index]
    return None if array is None else (array.entries, array.ways)


@pytest.mark.parametrize("name", sorted(GEOMETRY.keys() & set(cpu_names())))
def test_geometry_equals_the_published_table(name: str) -> None:
    row, cpu = GEOMETRY[name], load_cpu(name)
    assert cpu.vendor == row["vendor"].lower()
    for page, column in (("4K", "l1d_4k"), ("2M", "l1d_2m"), ("1G", "l1d_1g")):
        if row[column]:  # the table has no figure for Nehalem's large pages
            assert _geometry(cpu.tlb.l1, page) == _array(row[column]), page
    cycles = (cpu.cache.l1.cycles, cpu.cache.l2.cycles, cpu.cache.llc.cycles)
    assert cycles == (int(row["l1_cycles"]), int(row["l2_cycles"]), int(row["l3_cycles"]))

    published: dict[str, tuple[int, int]] = {}
    text = re.sub(r"\(.*\)", "", row["stlb"])
    for part in text.split(";"):
        array = re.search(r"\d+/\d+", part)
        assert array is not None
        pages = re.findall(r"4K|2M|1G", part) or ["4K"]
        published |= {page: _array(array[0]) for page in pages}
    published |= CPUID_CANNOT_SAY.get(name, {})
    for page, geometry in published.items():
        assert _geometry(cpu.tlb.l2, page) == geometry, page
    if "only" in row["stlb"]:
        assert cpu.tlb.l2["2M"] is None


def test_the_page_walk_caches_that_papers_give_are_theirs() -> None:
    k10, sandy = load_cpu("k10"), load_cpu("sandy-bridge")
    assert GEOMETRY["k10"]["other"] == "unified PWC 24 FA LRU, ntlb 16 FA (Bhargava 2008)"
    assert k10.pwc.style == "entry"
    assert (k10.pwc.entries, k10.pwc.sets, k10.ntlb.entries, k10.ntlb.sets) == (24, 1, 16, 1)
    assert GEOMETRY["sandy-bridge"]["other"] == "PDPTE cache 4 entries"
    assert sandy.pwc.style == "prefix"
    assert sandy.pwc.pdpte.entries == 4


def test_skylake_hashes_its_second_level() -> None:
    assert GEOMETRY["skylake-x"]["other"].startswith("STLB set index hashed (XOR-7)")
    l2 = load_cpu("skylake-x").tlb.l2["4K"]
    assert l2 is not None
    assert (l2.index, l2.sets.bit_length() - 1) == ("xor", 7)


def test_the_yardstick_preset_is_the_machine_of_walk_c() -> None:
    source = (ROOT / "benchmarks/yardstick/walk.c").read_text()
    arrays = {name: (int(sets), int(ways)) for name, sets, ways in re.findall(r"LRU\((\w+),(\d+),(\d+),\d\)", source)}
    cpu = load_cpu("yardstick")
    pwc = cpu.pwc
    assert isinstance(pwc, PrefixPwc)
    tlb1, tlb2 = cpu.tlb.l1["4K"], cpu.tlb.l2["4K"]
    assert tlb1 is not None
    assert tlb2 is not None
    ours: dict[str, Array] = {
        "tlb1": tlb1,
        "tlb2": tlb2,
        "psc4": pwc.pml4e,
        "psc3": pwc.pdpte,
        "psc2": pwc.pde,
        "nsc4": pwc.nested_pml4e,
        "nsc3": pwc.nested_pdpte,
        "nsc2": pwc.nested_pde,
        "ntlb": cpu.ntlb,
    }
    for name, array in ours.items():
        assert (array.sets, array.ways) == arrays.pop(name), name
    for name in ("l1", "l2", "llc"):
        cache = getattr(cpu.cache, name)
        assert (cache.sets * cache.slices, cache.ways) == arrays.pop(name), name
    assert not arrays
    body = source[source.index("INL void mem(") : source.index("// ---- radix tables")]
    latencies = tuple(int(cycles) for cycles in re.findall(r"lat\+=(\d+)", body))
    assert latencies == (cpu.cache.l1.cycles, cpu.cache.l2.cycles, cpu.cache.llc.cycles, cpu.memory.cycles)
    assert cpu.tlb.l2_cycles == cpu.ntlb.cycles == cpu.walk_start == 0
    assert {tlb1.index, tlb2.index} == {"modulo"}
    assert (cpu.cache.walker, cpu.walkers, pwc.pml5e.entries) == ("l1", 1, 0)


def test_cascade_lake_is_skylake_with_another_last_level() -> None:
    lake, sky = load_cpu("cascade-lake"), load_cpu("skylake-x")
    assert (lake.tlb, lake.pwc, lake.ntlb, lake.cache.l2) == (sky.tlb, sky.pwc, sky.ntlb, sky.cache.l2)
    assert (lake.frequency, lake.cache.llc.size, lake.cache.llc.ways) == (2_100_000_000, 35 * 2**20 + 768 * 2**10, 11)
    assert lake.cache.llc.size == 26 * sky.cache.llc.size // 10  # both have 1.375 MiB a slice
    by_key = {figure.key: figure for figure in lake.figures()}
    assert by_key["tlb.l2.4K.ways"].source == next(f.source for f in sky.figures() if f.key == "tlb.l2.4K.ways")


@given(st.integers(0, 256), st.integers(0, 256))
def test_an_array_has_a_power_of_two_of_sets_or_is_refused(entries: int, ways: int) -> None:
    valid = entries == ways == 0 or (
        entries > 0 and ways > 0 and entries % ways == 0 and bin(entries // ways).count("1") == 1
    )
    try:
        array = Array(entries=entries, ways=ways)
    except ValueError:
        assert not valid
    else:
        assert valid
        assert array.sets * array.ways == entries


DUEL = "QLRU_H11_M1_R1_U2/QLRU_H11_MR161_R1_U2"


@pytest.mark.parametrize(
    ("name", "ways", "said"),
    [
        ("plru", 12, "power of two"),
        ("lru-plru4", 6, "multiple of 4"),
        ("fifo", 128, "at most 64 ways"),
        ("plur", 8, "plru"),
        ("QLRU_H11_M1_R0_U2", 8, "U2 may leave none"),
        ("QLRU_H31_M1_R0_U0", 8, "QLRU_Hxy_Mx_Rx_Ux"),
        ("QLRU_H11_MR161_R1_U2", 8, "QLRU_Hxy_Mx_Rx_Ux"),
        ("QLRU_H11_M1_R1_U2/lru", 8, "two quad-age LRUs"),
        (f"{DUEL}/QLRU_H11_M1_R1_U2", 8, "two quad-age LRUs"),
        ("QLRU_H11_M1_R0_U2/QLRU_H11_MR161_R1_U2", 8, "U2 may leave none"),
        (DUEL, 8, "the LLC alone"),
    ],
)
def test_a_policy_that_does_not_exist_or_fit_is_refused(name: str, ways: int, said: str) -> None:
    with pytest.raises((ValueError, InputError), match=said):
        Array(entries=ways, ways=ways, replacement=name)


@pytest.mark.parametrize("name", [*NAMES, "QLRU_H00_M1_R2_U1", "QLRU_H21_M2_R0_U0_UMO", "QLRU_H11_M1_R1_U2"])
def test_every_policy_of_a_cpu_file_is_one_of_the_machine(name: str) -> None:
    assert Array(entries=16, ways=4, replacement=name).replacement == name
    assert (policy_of(name) == 0) == (name == "lru")


def test_the_usual_replacement_leaves_a_cpu_what_it_was() -> None:
    cpu = load_cpu("yardstick")
    same = apply_override(cpu, ((("cache", "llc", "replacement"), "lru"), (("cache", "llc", "filled"), "misses")))
    other = apply_override(cpu, ((("cache", "llc", "replacement"), "fifo"),))
    assert "replacement" not in str(cpu.canonical())
    assert same.canonical() == cpu.canonical() != other.canonical()


# ---- CPU files


def _cpu_file(folder: Path, text: str, name: str = "mine.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_cpu_file_inherits_a_preset(tmp_path: Path) -> None:
    text = (
        'name = "mine"\ninherit = "skylake-x"\n[memory]\ncycles = {value = 300, source = "me", confidence = "paper"}\n'
    )
    cpu = load_cpu(_cpu_file(tmp_path, text))
    assert (cpu.name, cpu.memory.cycles, cpu.tlb) == ("mine", 300, load_cpu("skylake-x").tlb)
    assert [f.source for f in cpu.figures() if f.key == "memory.cycles"] == ["me"]
    _cpu_file(tmp_path, 'name = "child"\ninherit = "mine.toml"\n', "child.toml")
    assert load_cpu("child.toml", folder=tmp_path).memory.cycles == 300


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[memory]\ncycles = 3", 4, "memory.cycles: it has no source"),
        ('[memory]\ncycles = {value = 3, source = "x", confidence = "sure"}', 4, "'sure', expected one of measured"),
        ('[memory]\ncycles = {value = -3, source = "x", confidence = "guess"}', 4, "found -3, expected at least 0"),
        ('[memory]\ncycle = {value = 3, source = "x", confidence = "guess"}', 4, "Did you mean 'cycles'?"),
        ('[tlb.l1]\n"2M" = {shared = "1G", source = "x", confidence = "guess"}', 4, "tlb.l1.2M"),
        ('[tlb.l1]\n"2M" = {shared = {a = 1}, source = "x", confidence = "guess"}', 4, "expected a page size of this"),
        ('[tlb.l1]\n"2M" = {shared = ["4K"], source = "x", confidence = "guess"}', 4, "expected a page size of this"),
        (
            '[tlb.l2]\n"4K" = {entries = 384, ways = 4, source = "x", confidence = "guess"}',
            4,
            "96 sets; the sets must be",
        ),
        ('[cache]\nllc = {size = "41.25MiB", source = "x", confidence = "guess"}', 4, "6144 sets; the sets must be"),
        ('[cache]\nllc = {slices = 9, source = "x", confidence = "guess"}', 4, "9 slices of whole 64-byte lines"),
        ('[pwc]\nstyle = {value = "prefx", source = "x", confidence = "guess"}', 4, "Did you mean 'prefix'?"),
        ('vendor = "amt"', 3, "Did you mean 'amd'?"),
        ('frequency = {value = "fast", source = "x", confidence = "guess"}', 3, "'fast' is not a frequency"),
    ],
)
def test_a_wrong_cpu_file_is_told_with_file_line_and_key(tmp_path: Path, text: str, line: int, words: str) -> None:
    path = _cpu_file(tmp_path, f'name = "mine"\ninherit = "skylake-x"\n{text}\n')
    with pytest.raises(InputError) as error:
        load_cpu(path)
    assert str(error.value).startswith(f"{path}")
    assert f"{path}:{line}: " in str(error.value)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('inherit = "skylake"', "Did you mean 'skylake-x'?"),
        ("inherit = 3", "found 3"),
        ('inherit = "mine.toml"', "inherits from itself"),
        ('inherit = "none.toml"', "no such CPU file"),
        ('name = "mine"', "missing"),
        ("name = ", "not valid TOML"),
    ],
)
def test_a_cpu_file_that_is_not_whole_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError) as error:
        load_cpu(_cpu_file(tmp_path, text))
    assert words in str(error.value)


def test_an_unknown_preset_is_refused_with_the_nearest() -> None:
    for name in ("zen-4", "common-costs", "../cpus/zen4"):
        with pytest.raises(InputError, match="is not a CPU preset"):
            load_cpu(name)
    with pytest.raises(InputError, match="Did you mean 'zen4'"):
        load_cpu("zen-4")


def test_overridden_figures_say_so(sample: str) -> None:
    scenario = Scenario.from_toml(sample).replace(**{"host.cpu_override.memory.cycles": 5})
    by_key = {figure.key: figure for figure in scenario.cpu.figures()}
    assert by_key["memory.cycles"].confidence == "given"
    assert "cpu_override" in by_key["memory.cycles"].source
    assert {f for f in scenario.cpu.figures() if f.key != "memory.cycles"} == {
        f for f in load_cpu("skylake-x").figures() if f.key != "memory.cycles"
    }


# ---- on the command line


def test_cpus_lists_every_preset() -> None:
    result = CliRunner().invoke(cpus_command, [])
    assert result.exit_code == 0
    assert all(name in result.output for name in cpu_names())
    assert not set(result.output) & set("│┃━┏")
    assert all(line == line.rstrip() for line in result.output.splitlines())


def test_cpus_shows_every_figure_of_one(tmp_path: Path) -> None:
    result = CliRunner().invoke(cpus_command, ["k10"])
    figures = list(load_cpu("k10").figures())
    assert all(figure.key in result.output and figure.source in result.output for figure in figures)


def test_cpus_as_json() -> None:
    listed = json.loads(CliRunner().invoke(cpus_command, ["--json"]).output)["cpus"]
    assert [cpu["name"] for cpu in listed] == list(cpu_names())
    one = json.loads(CliRunner().invoke(cpus_command, ["zen5", "--json"]).output)
    assert [figure["key"] for figure in one["figures"]] == [figure.key for figure in load_cpu("zen5").figures()]
    assert all(figure["source"] and figure["confidence"] for figure in one["figures"])


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_schema_prints_the_schema(options: list[str]) -> None:
    result = CliRunner().invoke(schema_command, options)
    assert json.loads(result.output) == Scenario.json_schema()
