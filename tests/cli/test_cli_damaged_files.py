"""Is every damaged file of the user, and every impossible value, refused by every verb that reads it?

Exit code 2, one paragraph, at once, in little memory, and nothing left behind: files x damage x verbs.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SCENARIO = """seed = 1
[host]
memory = "64MiB"
pool = { min = 16, max = 64, batch = 32 }
[[vm]]
name = "one"
memory = "4MiB"
mode = "ept"
workload = { kind = "uniform", footprint = "1MiB", accesses = 100 }
"""
CPU = 'inherit = "skylake-x"\nname = "mine"\ndescription = "of a test"\n'
CLUSTER = 'workers = 1\nmemory = "1GiB"\nqueue = "q"\n'
LIMIT = 10.0  # seconds


def text(change: Callable[[str], str | bytes]) -> Callable[[Path, str], None]:
    def write(path: Path, good: str) -> None:
        made = change(good)
        path.write_bytes(made if isinstance(made, bytes) else made.encode())

    return write


def sparse(path: Path, _: str) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 30)


DAMAGE: dict[str, Callable[[Path, str], Any]] = {
    "missing": lambda path, _: None,
    "a folder": lambda path, _: path.mkdir(),
    "a pipe that nobody writes to": lambda path, _: os.mkfifo(path),
    "/dev/zero": lambda path, _: path.symlink_to("/dev/zero"),
    "/proc/kmsg": lambda path, _: path.symlink_to("/proc/kmsg"),
    "a link to itself": lambda path, _: path.symlink_to(path.name),
    "a link to nowhere": lambda path, _: path.symlink_to("nowhere"),
    "1 GiB of nothing": sparse,
    "a line of 9 MB": text(lambda good: good + f'a = "{"x" * 9_000_000}"\n'),
    "Latin-1": text(lambda good: b"# caf\xe9\n" + good.encode()),
    "UTF-16": text(lambda good: good.encode("utf-16")),
    "two byte order marks": text(lambda good: b"\xef\xbb\xbf\xef\xbb\xbf" + good.encode()),
    "a NUL": text(lambda good: good + "\0"),
    "lone carriage returns": text(lambda good: good.replace("\n", "\r")),
    "cut in a string": text(lambda good: good + 'x = "abc'),
    "arrays 100,000 deep": text(lambda good: f"a = {'[' * 100_000}{']' * 100_000}\n" + good),
    "arrays 100 deep": text(lambda good: f"a = {'[' * 100}{']' * 100}\n" + good),
    "a dotted key of 20,000 parts": text(lambda good: "a" + ".a" * 20_000 + " = 1\n" + good),
    "a quoted key of 20,000 parts": text(lambda good: '"a"' + " . 'a'" * 20_000 + " = 1\n" + good),
    "a header of 50,000 parts": text(lambda good: good + "[" + ".".join("a" * 50_000) + "]\n"),
    "inline tables 5,000 deep": text(lambda good: "a = " + "{a=" * 5_000 + "1" + "}" * 5_000 + "\n" + good),
    "20,000 unknown keys": text(lambda good: "".join(f"k{n} = 1\n" for n in range(20_000)) + good),
    "an unknown key of 100,000 characters": text(lambda good: "k" * 100_000 + " = 1\n" + good),
    "a number of 5,000 digits": text(lambda good: f"number = {'9' * 5000}\n" + good),
    "a key twice": text(lambda good: "zz = 1\nzz = 2\n" + good),
}
# What reads it: the file, what is in a good one, and what is called.
READERS: dict[str, tuple[str, str, list[str]]] = {
    "run": ("s.toml", SCENARIO, ["run", "s.toml", "--out", "out"]),
    "compare": ("s.toml", SCENARIO, ["compare", "s.toml", "--out", "out"]),
    "sweep": ("w.toml", 'base = "s.toml"\naxes."host.cores" = [1, 2]\n', ["sweep", "w.toml"]),
    "sweep of a base": ("s.toml", SCENARIO, ["sweep", "w.toml"]),
    "sweep, dry": ("s.toml", SCENARIO, ["sweep", "w.toml", "--dry-run"]),
    "sweep on a cluster": ("c.toml", CLUSTER, ["sweep", "w.toml", "--scheduler", "c.toml"]),
    "run on a CPU": ("mine.toml", CPU, ["run", "s.toml", "--set", "host.cpu=mine.toml", "--out", "out"]),
    "run on an heir": ("mine.toml", CPU, ["run", "s.toml", "--set", "host.cpu=heir.toml", "--out", "out"]),
    "cpus": ("mine.toml", CPU, ["cpus", "mine.toml"]),
    "explain": ("mine.toml", CPU, ["explain", "--cpu", "mine.toml"]),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a working folder with a good file of each kind."""
    monkeypatch.chdir(tmp_path)
    for name, good, _ in READERS.values():
        Path(name).write_text(good)
    Path("heir.toml").write_text('inherit = "mine.toml"\nname = "heir"\n')
    return tmp_path


def refused(vmsim: Any, folder: Path, *arguments: str) -> str:
    """Call a verb; return what it says, which must be a paragraph and all that it does."""
    before, started = sorted(folder.rglob("*")), time.process_time()
    said = vmsim(*arguments)
    assert (said.status, said.out) == (2, ""), said
    assert time.process_time() - started < LIMIT
    assert sorted(folder.rglob("*")) == before
    assert "Traceback" not in said.err
    assert "\n\n" not in said.err
    assert 25 < len(said.err) < 3000
    assert all(each.isprintable() or each == "\n" for each in said.err)
    return str(said.err)


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("reader", READERS)
def test_a_damaged_file_is_refused(vmsim: Any, folder: Path, reader: str, damage: str) -> None:
    name, good, arguments = READERS[reader]
    Path(name).unlink()
    DAMAGE[damage](Path(name), good)
    assert name in refused(vmsim, folder, *arguments)


LARGE = 2**63 - 1
# Keys with values that they cannot have; each is tried on its own.
VALUES: dict[str, list[object]] = {
    "seed": [-1, 2**64, 1.5, "nan", "true", "[]", "1979-05-27"],
    "warmup": ["100%", "-1%", "nan%", 10**20, '"10%\\n"'],
    "host.memory": [0, -5, "5TiB", LARGE, '"4GiB\\n"', '"4\\nGiB"', "1e400GiB", "99999999999999999999GiB", '"٤GiB"'],
    "host.cores": [0, 1025, LARGE],
    "host.quantum": ["99999999999999999999999s", "1e-30s", "-1s", "1000001s", "10000000000000000cycles", 0],
    "host.horizon": ["-1s", "1e-30s", "10000000000000000cycles", 0],
    "host.pool.min": [-1, LARGE],
    "host.pool.max": [LARGE],
    "host.pool.batch": [0, LARGE],
    "host.fragmentation": ["nan", 1.1],
    "host.cpu": [
        "../../../../etc/passwd",
        "/etc/passwd.toml",
        '"x\\u0000.toml"',
        '""',
        ".",
        f"{'x' * 300}.toml",
        "[/x]",
    ],
    "host.cpu_override": [
        "{ x = [[1]] }",
        f"{{ x = {'[' * 30}{']' * 30} }}",
        "{ cost.vm_exit = [1, [2]] }",
        "5",
        "[1]",
    ],
    "host.cpu_override.levels": ["[[4]]", "[{}]", "[]", "[1979-05-27]"],
    "host.cpu_override.cost.vm_exit": [LARGE, -1, 10**9 + 1, "nan", 1.5],
    "host.cpu_override.walk_start": [LARGE],
    "host.cpu_override.cache.l1.cycles": [LARGE, -1],
    "host.cpu_override.cache.llc.size": ["1TiB", 0],
    "host.cpu_override.cache.llc.slices": [1 << 30],
    "host.cpu_override.ntlb.entries": [1 << 40, LARGE],
    "host.cpu_override.tlb.l2.4K.entries": [1 << 30, 1 << 62],
    "host.cpu_override.tlb.l1.4K.ways": [0, -1, 7, 1 << 16],
    "host.cpu_override.tlb.tags": [0, LARGE],
    "host.cpu_override.walkers": [10**12],
    "host.cpu_override.frequency": [0, LARGE, "1000GHz"],
    "host.cpu_override.name": ["a\x1b[31m", "x" * 65],
    "vm.name": ["[/x]", "x" * 300, "=cmd()", "..", "a b", "a\x1b[0m", "123", "memory", "\u202egnp"],
    "vm.count": [-1, 5000, 1.5],
    "vm.memory": ["-1GiB", "0", LARGE, "NaN", "1.5B"],
    "vm.start": ["-1s", "99999999999s", f"{LARGE}cycles"],
    "vm.fill_chunk": [0, 513, '"8"', "true"],
    "vm.dirty_log.every": ["0s", "0.0001ns"],
    "vm.software_tlb.entries": [-1, LARGE],
    "vm.agile.root_cache": [LARGE],
    "vm.nx_recovery_ratio": [-1, LARGE],
    "vm.workload.accesses": [0, LARGE, 10**20],
    "vm.workload.compute": [LARGE, -1],
    "vm.workload.base": [5, "0xffff_8000_0000_0000", '"0x1000\\n"'],
    "vm.workload": [
        '{ kind = "switcher", footprint = "1MiB", accesses = 5, spaces = 1000000000000 }',
        '{ kind = "disk", footprint = "1MiB", reads = 1, device = "99999999999s" }',
        '{ kind = "disk", footprint = "1MiB", reads = 9223372036854775807 }',
        '{ kind = "compile", footprint = "1MiB", processes = 1, text = "1024TiB" }',
        '{ kind = "compile", footprint = "1MiB", processes = 1, parent = "8MiB" }',
        '{ kind = "trace", path = "[/x]" }',
        '{ kind = "trace", path = "x/x/x", repeat = 9223372036854775807 }',
        f'{{ kind = "trace", path = "{"x" * 300}" }}',
        '{ kind = "trace", path = "/dev/zero", format = "u64" }',
    ],
    "x" + ".x" * 20_000: [1],
    "vm." + "9" * 5000 + ".mode": ["ept"],
    "vm.\u0664.mode": ["ept"],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in VALUES.items() for value in values])
def test_an_impossible_value_is_refused(vmsim: Any, folder: Path, key: str, value: object) -> None:
    refused(vmsim, folder, "run", "s.toml", "--set", f"{key}={value}", "--out", "out")


@pytest.mark.parametrize(
    ("name", "files", "told"),
    [
        ("self.toml", {"self.toml": 'inherit = "self.toml"\n'}, "inherits from itself"),
        ("a.toml", {"a.toml": 'inherit = "b.toml"\n', "b.toml": 'inherit = "./a.toml"\n'}, "inherits from itself"),
        ("c0.toml", {f"c{n}.toml": f'inherit = "c{n + 1}.toml"\n' for n in range(1500)}, "at most 16"),
    ],
)
@pytest.mark.parametrize("verb", ["run", "cpus", "explain"])
def test_cpu_files_that_inherit_without_end_are_refused(
    vmsim: Any, folder: Path, verb: str, name: str, files: dict[str, str], told: str
) -> None:
    for each, content in files.items():
        Path(each).write_text(content)
    verbs = {"run": ["run", "s.toml", "--set", f"host.cpu={name}"], "cpus": ["cpus", name], "explain": ["explain"]}
    assert told in refused(vmsim, folder, *verbs[verb], *(["--cpu", name] if verb == "explain" else []))


@pytest.mark.parametrize("base", ["w.toml", "[/x]", "/dev/zero", "x" * 300, "", ".", "a\\u0000b"])
def test_a_base_that_is_no_scenario_is_refused(vmsim: Any, folder: Path, base: str) -> None:
    Path("w.toml").write_text(f'base = "{base}"\naxes."host.cores" = [1, 2]\n')
    refused(vmsim, folder, "sweep", "w.toml")


@pytest.mark.parametrize("out", ["y" * 5000, "z" * 300, "s.toml/x", "/proc/x", "/dev/null"])
@pytest.mark.parametrize("verb", ["run", "compare", "sweep"])
def test_a_place_for_results_that_cannot_be_is_refused(vmsim: Any, folder: Path, verb: str, out: str) -> None:
    refused(vmsim, folder, verb, "w.toml" if verb == "sweep" else "s.toml", "--out", out)


@pytest.mark.parametrize("verb", ["run", "compare", "sweep"])
def test_a_link_to_nowhere_is_no_place_for_results(vmsim: Any, folder: Path, verb: str) -> None:
    """As for mkdir -p: whoever made the link meant a folder that is gone, on a disk that is not mounted, say."""
    Path("o").symlink_to(folder / "gone" / "o")
    refused(vmsim, folder, verb, "w.toml" if verb == "sweep" else "s.toml", "--out", "o")
    assert not (folder / "gone").exists()


@pytest.mark.parametrize("verb", ["run", "compare", "sweep", "cpus", "explain"])
@pytest.mark.parametrize(
    "name", ["x" * 300 + ".toml", "x/" * 2500 + "a.toml", "\udcff\udcfe.toml", "[/x].toml", "a\nb.toml"]
)
def test_a_name_that_leads_nowhere_is_refused(vmsim: Any, folder: Path, verb: str, name: str) -> None:
    refused(vmsim, folder, verb, *(["--cpu"] if verb == "explain" else []), f"{name}.toml")


def test_markup_in_names_is_text(vmsim: Any, folder: Path) -> None:
    Path("mine.toml").write_text(CPU.replace("mine", "[/x]").replace("of a test", "[bold]of [/y] a test"))
    said = vmsim("cpus", "mine.toml")
    assert said.status == 0, said.err
    assert "[bold]of [/y] a test" in said.out
    Path("[b].toml").write_text(SCENARIO)
    assert vmsim("run", "[b].toml", "--set", "host.cpu=mine.toml", "--set", "vm.mode=native").status == 0


@pytest.mark.parametrize(
    "damage", ["200,000 unknown keys", "a dotted key of 20,000 parts", "1 GiB of nothing", "/dev/zero"]
)
def test_a_process_of_its_own_takes_little(folder: Path, damage: str) -> None:
    """Under 10 s of CPU and 1 GiB of address space, which is more than is resident."""
    if damage in DAMAGE:
        Path("s.toml").unlink()
        DAMAGE[damage](Path("s.toml"), SCENARIO)
    else:
        Path("s.toml").write_text(SCENARIO.replace("[host]", "".join(f"k{n} = 1\n" for n in range(200_000)) + "[host]"))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (10, 10))
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))

    command = [sys.executable, "-c", "from vmsim.cli import main; main()", "run", "s.toml", "--out", "out"]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, cwd=folder, check=False)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert "Traceback" not in done.stderr
    assert not Path("out").exists()
