"""Is whatever is wrong with a scenario told in one paragraph: file, line, key, what was found, what is right?"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmsim.base.errors import InputError
from vmsim.scenario import Scenario

# (what to replace in the sample, by what, key in the message, words in the message)
BAD = [
    ("seed = 7", "seed = -1", "seed", "found -1, expected at least 0"),
    ("seed = 7", "seed = 7.0", "seed", "expected a whole number"),
    ("seed = 7", "sede = 7", "sede", "unknown key. Did you mean 'seed'?"),
    ('warmup = "10%"', 'warmup = "100%"', "warmup", "'100%' is not a warm-up"),
    ('warmup = "10%"', "warmup = -1", "warmup", "-1 is not a warm-up"),
    ("[host.pool]", "[host.pol]", "host.pol", "Did you mean 'pool'?"),
    ("min = 64", "min = 2048", "host.pool.min", "pool.min > pool.max (2048 > 1024)"),
    ("max = 1024", "max = 0", "host.pool.max", "found 0, expected at least 1"),
    ("max = 1024", "max = 99999999", "host.pool.max", "pool.max > host.memory"),
    ("batch = 256", "batch = 0", "host.pool.batch", "found 0, expected at least 1"),
    ("batch = 256", "batches = 1", "host.pool.batches", "Did you mean 'batch'?"),
    ("min = 128", "min = 1025", "vm.0.pool", "pool.min > pool.max (1025 > 1024"),
    ("cores = 2", "cores = 0", "host.cores", "found 0, expected at least 1"),
    ("cores = 2", "cores = 1025", "host.cores", "expected at most 1024"),
    ("cores = 2", "cores = true", "host.cores", "found true, expected a whole number"),
    ("cores = 2", "data_caches = 1", "host.data_caches", "found 1, expected true or false"),
    ('memory = "16GiB"', 'memory = "16Gb"', "host.memory", "'16Gb' is not a size; write for example \"2GiB\""),
    ('memory = "16GiB"', "memory = 0", "host.memory", "0 is a zero size"),
    ('memory = "16GiB"', 'memory = "8TiB"', "host.memory", "more than vmsim can simulate (4TiB)"),
    ('memory = "16GiB"', 'memory = "10MB"', "host.memory", "not a whole number of 4KiB pages"),
    ('quantum = "1ms"', 'quantum = "0s"', "host.quantum", "zero time slice"),
    ('quantum = "1ms"', 'quantum = "0.01ns"', "host.quantum", "less than one cycle"),
    ('quantum = "1ms"', 'horizon = "0s"', "host.horizon", "zero horizon"),
    ('quantum = "1ms"', 'horizon = "0.01ns"', "host.horizon", "less than one cycle"),
    ('quantum = "1ms"', 'samples = "0.01ns"', "host.samples", "less than one cycle"),
    ('quantum = "1ms"', "quantum = 5", "host.quantum", '5 is not a duration; write for example "50us"'),
    ('quantum = "1ms"', 'watermarks = {min="2GiB", low="1GiB"}', "host.watermarks", "min ≤ low ≤ high"),
    ('quantum = "1ms"', 'watermarks.min="15GiB"', "host.watermarks", "high ≥ host.memory"),
    ('cpu = "skylake-x"', 'cpu = "skylake"', "host.cpu", "Did you mean 'skylake-x'?"),
    ('cpu = "skylake-x"', 'cpu = "mine.toml"', "host.cpu", "mine.toml: no such CPU file"),
    ('cpu = "skylake-x"', 'cpu = "zen4"', "vm.0.mode", "mode ept belongs to Intel CPUs and zen4 is an AMD CPU"),
    ("cores = 2", 'cpu_override.tlb.l2."4K".ways = 5', "host.cpu_override.tlb.l2.4K", "cannot be divided into 5 ways"),
    ("cores = 2", 'cpu_override.tlb.l2."4K".ways = 8', "host.cpu_override.tlb.l2.4K", "192 sets; the sets must be"),
    ("cores = 2", "cpu_override.cost.vmexit = 8", "host.cpu_override.cost.vmexit", "Did you mean 'vm_exit'?"),
    ("cores = 2", "cpu_override = 8", "host.cpu_override", "found 8"),
    ('name = "web"', 'name = "db"', "vm.1.name", "duplicated VM name 'db': the table vm.0"),
    ('name = "web"', 'name = "db-1"', "vm.1.name", "duplicated VM name 'db-1': the table vm.0"),
    ('name = "db"', 'name = "d b"', "vm.0.name", "letters, digits"),
    ('name = "db"', 'name = "mode"', "vm.0.name", "ambiguous"),
    ('name = "db"', 'name = "12"', "vm.0.name", "ambiguous"),
    ("count = 2", "count = -1", "vm.0.count", "found -1, expected at least 0"),
    ("count = 2", "count = 4095", "vm.0.count", "expected at most 4094"),
    ("count = 2", "count = 4094", "vm", "4095 VMs, expected 1 to 4094"),
    ('kind = "uniform"', "", "vm.0.workload.kind", "missing"),
    ('memory = "2GiB"', 'memory = "1KiB"', "vm.0.memory", "1KiB is smaller than a page of 4KiB"),
    ('memory = "2GiB"', 'memory = "0GiB"', "vm.0.memory", "zero size"),
    ('mode = "ept"', 'mode = "npt"', "vm.0.mode", "mode npt belongs to AMD CPUs and skylake-x is an Intel CPU"),
    ('mode = "ept"', 'mode = "etp"', "vm.0.mode", "vm.0.mode (db): found 'etp', expected 'native', 'ept'"),
    ('mode = "ept"', 'mode = "etp"', "vm.0.mode", "Did you mean 'ept'?"),
    ('mode = "ept"', 'mode = "native"', "vm.0.host_page", "mode native has no second dimension"),
    ('mode = "native"', 'mode = "native"\nhost_levels = 5', "vm.1.host_levels", "mode native has no nested tables"),
    ('mode = "ept"', 'mode = "ept"\nguest_levels = 5', "vm.0.guest_levels", "skylake-x has no 5-level paging"),
    ('mode = "ept"', 'mode = "ept"\nguest_levels = 1', "vm.0.guest_levels", "found 1"),
    ('mode = "ept"', 'mode = "paired"\nguest_levels = 3', "vm.0.guest_levels", "mode paired has no guests of 3 levels"),
    ('mode = "ept"', 'mode = "paired"\nguest_levels = 2', "vm.0.guest_levels", "mode paired has no guests of 2 levels"),
    ('mode = "ept"', 'mode = "shadow"\nshadow.preset = "kvm-2008"', "vm.0.shadow.preset", "Did you mean 'kvm-2007'?"),
    *(
        ('mode = "ept"', f'mode = "shadow"\nshadow = {{ {keys} }}', f"vm.0.shadow.{key}", words)
        for key, keys, words in (
            ("write_flood", 'trap = "single-step", write_flood = 3', "would do nothing with trap"),
            ("write_flood", 'preset = "plex86", write_flood = 1', "would do nothing with trap"),
            ("step", 'step = "debug-register"', 'would do nothing with trap = "unsync"'),
            ("step", 'preset = "kvm-2007", step = "debug-register"', 'would do nothing with trap = "emulate"'),
            ("ad", 'hide = "user-bit", ad = "read-sync"', 'choose trap = "emulate"'),
        )
    ),
    (
        'mode = "ept"',
        'mode = "agile"\nguest_levels = 2',
        "vm.0.guest_levels",
        "Modes native, ept, npt, shadow and vkernel have",
    ),
    (
        'mode = "ept"',
        'mode = "ept"\nguest_levels = 2',
        "vm.0.workload.base",
        "2 levels gives its programs the first 3GiB",
    ),
    ('mode = "ept"', 'mode = "ept"\nhost_levels = 2', "vm.0.host_levels", "mode ept has no nested tables of 2 levels"),
    ('mode = "ept"', 'mode = "npt"\nguest_levels = 3\nhost_levels = 2', "vm.0.host_levels", "expected 2 of both"),
    ('guest_page = "4K"', 'guest_page = "2M"\nguest_levels = 2', "vm.0.guest_page", "of 2M; expected 4K or 4M"),
    ('guest_page = "4K"', 'guest_page = "1G"\nguest_levels = 2', "vm.0.guest_page", "of 1G; expected 4K or 4M"),
    ('guest_page = "4K"', 'guest_page = "4M"', "vm.0.guest_page", "has no pages of 4M; expected 4K, 2M or 1G"),
    ('guest_page = "4K"', 'guest_page = "4M"\nguest_levels = 3', "vm.0.guest_page", "of 4M; expected 4K or 2M"),
    ('memory = "2GiB"', 'memory = "5GiB"\nguest_levels = 2', "vm.0.memory", "reach 4GiB, and this is 5GiB"),
    ('mode = "ept"', 'mode = "ept"\nhost_levels = 3', "vm.0.host_levels", "mode ept has no nested tables of 3 levels"),
    ('mode = "ept"', 'mode = "auto"\nhost_levels = 3', "vm.0.host_levels", "mode ept has no nested tables of 3 levels"),
    ('mode = "ept"', 'mode = "npt"\nhost_levels = 3', "vm.0.host_levels", "expected 3 of both"),
    ('mode = "ept"', 'mode = "ept"\nguest_levels = 3', "vm.0.workload.base", "first 3GiB, and the region ends at 0x10"),
    ('guest_page = "4K"', 'guest_page = "1G"\nguest_levels = 3', "vm.0.guest_page", "has no pages of 1G"),
    ('guest_page = "4K"', 'guest_page = "3M"', "vm.0.guest_page", "'3M' is not a page size"),
    ('"1GiB"\nmode', '"512MiB"\nguest_page = "1G"\nmode', "vm.1.guest_page", "guest_page > memory (1G > 512MiB)"),
    ('host_page = "2M"', 'host_page = "2M"\npopulate = "eger"', "vm.0.populate", "Did you mean 'eager'?"),
    ('kind = "uniform"', 'kind = "zip"', "vm.0.workload.kind", "Did you mean 'zipf'?"),
    ('kind = "uniform"', "", "vm.0.workload.kind", "expected one of trace, uniform, zipf"),
    ('kind = "uniform"', 'kind = "zipf"\nexponent = inf', "vm.0.workload.exponent", "finite"),
    ('kind = "uniform"', 'kind = "trace"', "vm.0.workload.path", "missing"),
    ('kind = "uniform"', 'kind = "gups"\nupdates = 1', "vm.0.workload.accesses", "unknown key"),
    ('kind = "uniform"', 'kind = "chase"\nstride = "2GiB"', "vm.0.workload.stride", "stride > footprint (2GiB > 1GiB)"),
    (
        'footprint = "1GiB"',
        'footprint = "3GiB"',
        "vm.0.workload.footprint",
        "footprint > memory of the VM (3GiB > 2GiB)",
    ),
    ('footprint = "1GiB"', "footprint = 0", "vm.0.workload.footprint", "zero size"),
    ("accesses = 1000", "accesses = 0", "vm.0.workload.accesses", "at least 1"),
    ("accesses = 1000", "accesses = 5\nwrites = 1.01", "vm.0.workload.writes", "expected at most 1"),
    (
        "accesses = 1000",
        "accesses = 5\nbase = 0x8000_0000_0000",
        "vm.0.workload.base",
        "not a canonical 48-bit address",
    ),
    ("accesses = 1000", 'accesses = 5\nbase = "0x7fff_ffff_f000"', "vm.0.workload.base", "not a canonical"),
    ("accesses = 1000", "accesses = 5\nbase = 0xffff_8000_0000_0000", "vm.0.workload.base", "kernel's half"),
    ("accesses = 1000", "accesses = 5\nbase = 4097", "vm.0.workload.base", "does not begin a 4 KiB page"),
    ("accesses = 1000", 'accesses = 5\nbase = "0xzz"', "vm.0.workload.base", "'0xzz' is not an address"),
    ("repeat = 4", "repeat = 0", "vm.1.workload.repeat", "at least 1"),
    ("repeat = 4", "repeats = 4", "vm.1.workload.repeats", "Did you mean 'repeat'?"),
    ("repeat = 4", 'format = "lacky"', "vm.1.workload.format", "Did you mean 'lackey'?"),
]


@pytest.mark.parametrize(("old", "new", "key", "words"), BAD)
def test_bad_input_is_told_with_file_line_and_key(sample: str, old: str, new: str, key: str, words: str) -> None:
    assert sample.count(old) >= 1
    text = sample.replace(old, new, 1)
    with pytest.raises(InputError) as error:
        Scenario.from_toml(text, source="some/file.toml")
    message = str(error.value)
    assert "some/file.toml" in message
    assert words in message
    told = re.search(rf"some/file\.toml:(\d+): {re.escape(key)}\b", message)
    assert told is not None, message
    lines = text.splitlines()
    line = lines[int(told[1]) - 1]
    *parents, last = key.split(".")
    if last in new:  # the key is in what was written: then it is told there
        first = text[: sample.index(old)].count("\n") + 1
        assert first <= int(told[1]) <= first + new.count("\n")
    elif last not in line:  # it is missing: then the table that lacks it is told
        table = ".".join(part for part in parents if not part.isdigit())
        assert line in (f"[{table}]", f"[[{table}]]")
    assert "\n\n" not in message


def test_each_line_is_that_of_its_key(sample: str) -> None:
    text = sample.replace("cores = 2", "cores = 0").replace("batch = 256", "batch = 0").replace('"web"', '"w b"')
    with pytest.raises(InputError) as error:
        Scenario.from_toml(text, source="f")
    lines = text.splitlines()
    expected = [lines.index(line) + 1 for line in ("cores = 0", "batch = 0", 'name = "w b"')]
    assert [int(number) for number in re.findall(r"f:(\d+): ", str(error.value))] == expected


def test_problems_are_told_in_the_same_order_whatever_the_hash_seed(sample: str) -> None:
    text = sample.replace('"2GiB"', '"3KiB"').replace("seed = 7", "a = 1\nb = 2\nc = 3")
    code = (
        "from vmsim.base.errors import InputError\nfrom vmsim.scenario import Scenario\n"
        f"try: Scenario.from_toml({text!r}).replace()\nexcept InputError as error: print(error)"
    )
    messages = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(messages) == 1
    assert "problems" in messages.pop()


def test_of_many_problems_five_are_listed_and_the_rest_counted(sample: str) -> None:
    text = "\n".join(f"key{number} = 1" for number in range(8)) + "\n" + sample
    with pytest.raises(InputError) as error:
        Scenario.from_toml(text)
    message = str(error.value)
    assert "8 problems" in message
    assert [f"key{number}:" in message for number in range(8)] == [True] * 5 + [False] * 3
    assert message.endswith("and 3 more")


@pytest.mark.parametrize("text", ["[host", "a = ", 'a = "', "a = 1\na = 2", "a = 1 b = 2", "a = " + "[" * 5000])
def test_malformed_toml_is_told_with_its_place(text: str) -> None:
    with pytest.raises(
        InputError, match=r"^f\.toml(:[12]: not valid TOML: .*\((column \d+|at the end of the file)\)|: .*deeply)"
    ):
        Scenario.from_toml(text, source="f.toml")


def test_keys_nested_without_end_are_refused(sample: str) -> None:
    deep = ".".join("x" * 900)
    for text in (f"{deep} = 1\n{sample}", sample.replace("cores = 2", f"cpu_override.{deep} = 1")):
        with pytest.raises(InputError):
            Scenario.from_toml(text)


@pytest.mark.parametrize("text", ["", "seed = 1", "vm = []", "vm = 3", "vm = [1]", "[vm]\nname = 'a'"])
def test_a_scenario_without_vms_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="vm"):
        Scenario.from_toml(text)


@pytest.mark.parametrize(("cpu", "mode", "where"), [("nehalem", "ept", " in EPT"), ("core2", "shadow", "")])
def test_pages_of_1g_that_a_cpu_has_not_are_refused(sample: str, cpu: str, mode: str, where: str) -> None:
    text = sample.replace('"skylake-x"', f'"{cpu}"').replace('mode = "ept"', f'mode = "{mode}"')
    text = text.replace('host_page = "2M"', 'host_page = "1G"').replace('guest_page = "4K"', 'guest_page = "1G"')
    with pytest.raises(InputError) as error:
        Scenario.from_toml(text)
    for said in (
        "vm.0.guest_page (db)",
        f"{cpu} has no pages of 1G; expected 4K or 2M",
        "host.what_if = true allows it",
    ):
        assert said in str(error.value)
    assert f"vm.0.host_page (db): {cpu} has no pages of 1G{where};" in str(error.value)
    assert Scenario.from_toml(text.replace("cores = 2", "what_if = true")).pages_1g


def test_what_if_allows_any_mode_and_depth(sample: str) -> None:
    text = sample.replace('mode = "ept"', 'mode = "npt"\nguest_levels = 5\nhost_levels = 5')
    text = text.replace("cores = 2", "what_if = true")
    assert Scenario.from_toml(text).vms[0].mode == "npt"


def test_vms_may_have_more_memory_than_the_host(sample: str) -> None:
    scenario = Scenario.from_toml(sample.replace("count = 2", "count = 100"))
    assert sum(vm.memory for vm in scenario.vms) > scenario.host.memory


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b"name = '\xe9'")
    for path, words in (
        (tmp_path / "none.toml", "no such scenario"),
        (tmp_path, "this is a folder"),
        (tmp_path / "latin.toml", "not UTF-8"),
        (tmp_path / "latin.toml" / "x.toml", "cannot be read"),
        (tmp_path / "nul\0.toml", "cannot be read"),
    ):
        with pytest.raises(InputError, match=words) as error:
            Scenario.load(path)
        assert str(path).replace("\0", "\\x00") in str(error.value)


def test_a_cpu_file_with_a_mistake_is_told_with_its_own_line(sample: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('inherit = "zen4"\nname = "mine"\n\n[cost]\nvm_exti = 3\n')
    (tmp_path / "s.toml").write_text(sample.replace("skylake-x", "mine.toml"))
    with pytest.raises(InputError) as error:
        Scenario.load(tmp_path / "s.toml")
    assert "s.toml:5: host.cpu" in str(error.value)
    assert "mine.toml:5: cost.vm_exti: it has no source" in str(error.value)


@given(st.text(max_size=200))
@settings(deadline=None)
def test_any_text_is_a_scenario_or_an_input_error(text: str) -> None:
    with pytest.raises(InputError):
        Scenario.from_toml(text)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("2GiB"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
keys = st.sampled_from(
    [
        *("seed", "warmup", "host", "host.cpu", "host.cpu_override", "host.pool", "host.pool.min", "host.memory"),
        "host.horizon",
        *("host.quantum", "host.watermarks", "vm", "vm.name", "vm.count", "vm.memory", "vm.mode", "vm.start"),
        *(
            "vm.pool",
            "vm.workload",
            "vm.workload.kind",
            "vm.workload.base",
            "vm.db",
            "vm.1.pool.max",
            "host.workload.kind",
        ),
    ]
)


@given(st.dictionaries(keys, values, max_size=3))
@settings(deadline=None, max_examples=200)
def test_any_change_gives_a_scenario_or_an_input_error(sample: str, changes: dict[str, object]) -> None:
    try:
        scenario = Scenario.from_toml(sample).replace(**changes)
    except InputError:
        return
    assert Scenario.from_toml(scenario.to_toml()) == scenario


WORDS = (
    "warmup",
    "host.cpu",
    "host.scheduler",
    "host.spares",
    "host.pool.refill",
    "host.swap.device",
    "host.swap.read",
)
MORE = ("host.reclaim.policy", "vm.mode", "vm.name", "vm.workload.kind", "vm.paired.guest_at")


@pytest.mark.parametrize("key", [*WORDS, *MORE])
@pytest.mark.parametrize("text", ["x" * 50_000, "x y " * 20_000])
def test_a_value_however_long_gives_a_message_that_can_be_read(key: str, text: str, sample: str) -> None:
    with pytest.raises(InputError, match=key.rpartition(".")[2]) as caught:
        Scenario.from_toml(sample).replace(**{key: text})
    assert len(str(caught.value)) < 20_000
    assert len(caught.value.message) < 20_000
