"""Does a package beside vmsim add a mode, a workload and a CPU, and is one that is broken told of by its name?"""

from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.forks import forked

REPOSITORY = Path(__file__).parents[2]
HERE = Path(__file__).parent
GUIDES = {path.stem: path.read_text("utf-8") for path in (REPOSITORY / "docs/extending").glob("*.md")}

ENTRY_POINTS = """\
[vmsim.modes]
prefault = prefault.mode:PREFAULT
[vmsim.workloads]
bounce = prefault.bounce:Bounce
[vmsim.daemons]
trim = prefault.trim:TRIM
[vmsim.policies]
highest = prefault.trim:HIGHEST
[vmsim.cpus]
prefault = prefault.cpus
"""
SCENARIO = """\
[host]
cpu = "slow-exits"
memory = "64MiB"
pool = { min = 4, max = 64, batch = 32 }
[[vm]]
name = "a"
memory = "4MiB"
mode = "prefault"
prefault = { pages = 4 }
workload = { kind = "sequential", footprint = "128KiB", stride = "4KiB", accesses = 32 }
[[vm]]
name = "b"
memory = "4MiB"
mode = "ept"
fill_chunk = 4
workload = { kind = "sequential", footprint = "128KiB", stride = "4KiB", accesses = 32 }
[[vm]]
name = "c"
memory = "4MiB"
mode = "ept"
workload = { kind = "bounce", footprint = "128KiB", rounds = 50 }
"""


def test_the_guides_show_every_file_of_the_package_as_it_is() -> None:
    shown = re.findall(r"^`prefault/(\w+\.py)`[^\n]*\n\n```python\n(.*?)^```", "\n".join(GUIDES.values()), re.M | re.S)
    files = {path.name: path.read_text("utf-8") for path in HERE.glob("prefault/*.py") if path.name != "__init__.py"}
    assert dict(shown) == files
    assert (HERE / "prefault/cpus/slow-exits.toml").read_text("utf-8") in GUIDES["cpu"]


def test_the_guides_register_what_is_installed_here() -> None:
    points = {}
    for line in ENTRY_POINTS.splitlines():
        if line.startswith("["):
            points[line[1:-1]] = group = {}
        else:
            name, _, target = line.partition(" = ")
            group[name] = target
    project = tomllib.loads(GUIDES["index"].partition("```toml\n")[2].partition("```")[0])["project"]
    assert project["entry-points"] == points
    for guide, text in GUIDES.items():
        for table in re.findall(r"```toml\n(\[project\.entry-points.*?)```", text, re.S):
            for group, named in tomllib.loads(table)["project"]["entry-points"].items():
                assert named == points[group], guide


def installed(site: Path, package: str, entry_points: str, version: str = "1.0") -> Path:
    """Write what an installer would have left of a distribution, and return the folder for PYTHONPATH."""
    folder = site / f"{package.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    (folder / "entry_points.txt").write_text(entry_points)
    return site


def python(code: str, *folders: Path, cwd: Path) -> Any:
    """Run code in a new process that has some folders on its path; return what it printed as JSON."""
    path = os.pathsep.join(map(str, (*folders, REPOSITORY)))
    environment = {**os.environ, "PYTHONPATH": path}
    done = forked(code, cwd, environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


Said = tuple[int, str, str]

COMMANDS = """
import contextlib, io, json
from vmsim.cli import main
told = []
for words in {}:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(words)
        except SystemExit as leaving:
            told.append([leaving.code, out.getvalue(), err.getvalue()])
print(json.dumps(told))
"""


def commands(*lines: list[str], folders: tuple[Path, ...], cwd: Path) -> list[Said]:
    """Run ``vmsim`` in a new process, once for each command line; return the statuses and what it wrote."""
    return [(status, out, err) for status, out, err in python(COMMANDS.format(lines), *folders, cwd=cwd)]


def command(*words: str, folders: tuple[Path, ...], cwd: Path) -> Said:
    """Run ``vmsim`` in a new process; return its status and what it wrote."""
    [said] = commands([*words], folders=folders, cwd=cwd)
    return said


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return folders for the path with the test package in them, as if installed."""
    return installed(tmp_path_factory.mktemp("site"), "vmsim-prefault", ENTRY_POINTS), HERE


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "scenario.toml"
    path.write_text(SCENARIO)
    return path


RUN = """
import json, vmsim
result = vmsim.run("scenario.toml", check=True)
exits = result.exits.set_index(["vm", "reason"])["count"]
summary = result.summary.set_index("vm")
both = vmsim.compare("scenario.toml", ["ept", "prefault"])
swept = vmsim.sweep("scenario.toml", {"vm.a.prefault.pages": [1, 8]}, jobs=1, progress=False)
print(json.dumps({
    "exits": [[*key, int(count)] for key, count in exits.items()],
    "accesses": summary["accesses"].to_dict(),
    "counted": result.figures.query("component == 'prefault'")[["vm", "figure", "value"]].to_numpy().tolist(),
    "vm_exit": result.scenario.cpu.cost.vm_exit,
    "cpu": result.scenario.cpu.name,
    "violations": [
        [str(mode), str(row.vm), int(row.count)]
        for mode, each in both.results.items()
        for row in each.exits.itertuples()
    ],
    "swept": len(swept),
    "same": vmsim.Scenario.from_toml(result.scenario.to_toml()) == result.scenario,
    "packages": [each.get("packages") for each in json.loads(result.scenario.canonical())["vms"]],
}, default=str))
"""


@pytest.fixture(scope="module")
def ran(site: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return figures of a run with --check, of a comparison and of a sweep."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "scenario.toml").write_text(SCENARIO)
    return python(RUN, *site, cwd=folder)


def test_a_mode_from_outside_runs_with_every_invariant_checked_and_maps_a_window_at_a_time(ran: Any) -> None:
    counts = {vm: {reason: count for name, reason, count in ran["exits"] if name == vm} for vm in "abc"}
    assert counts["a"]["PREFAULT"] == counts["b"]["EPT_VIOLATION"]  # a window of 4 is what fill_chunk = 4 is
    assert "EPT_VIOLATION" not in counts["a"]
    assert ran["same"]


def test_what_a_mode_from_outside_counts_is_a_figure(ran: Any) -> None:
    windows = next(count for vm, reason, count in ran["exits"] if (vm, reason) == ("a", "PREFAULT"))
    assert ran["counted"] == [["a", "windows", windows]]


def test_a_workload_from_outside_makes_the_accesses_that_its_key_says(ran: Any) -> None:
    assert ran["accesses"] == {"a": 32, "b": 32, "c": 100}  # 50 rounds of two


def test_a_cpu_from_outside_has_its_own_figure_and_inherits_the_rest(ran: Any) -> None:
    assert (ran["cpu"], ran["vm_exit"]) == ("slow-exits", 5000)


def test_comparison_and_sweep_have_the_mode(ran: Any) -> None:
    counts = {(mode, vm): count for mode, vm, count in ran["violations"]}
    assert counts["prefault", "b"] < counts["ept", "a"]  # 32 pages in windows of 8, and one by one
    assert ran["swept"] == 2 * 3  # two points of three VMs


def test_results_depend_on_the_package_and_its_version(ran: Any) -> None:
    assert ran["packages"] == [["vmsim-prefault 1.0"], None, ["vmsim-prefault 1.0"]]


WRONG = [
    ('mode = "prefualt"', "'prefault'"),
    ('mode = "prefault"\nagile = { threshold = 3 }', "it has no effect in mode prefault, only in agile"),
    ('mode = "prefault"\nprefault.page = 4', "Did you mean 'pages'?"),
    ('mode = "prefault"\nprefault.pages = 0', "expected at least 1"),
    ('mode = "prefault"\nfill_chunk = 4', "it has no effect in mode prefault"),
    ('mode = "ept"\nprefault.pages = 4', "it has no effect in mode ept, only in prefault"),
    ('mode = "prefault"\nprefault.pages = 512', "a window is larger than the VM's memory"),
    ('mode = "prefault"\nguest_page = "4K"\nnx_split = true', "mode prefault has none"),
]


@pytest.fixture(scope="module")
def refused(site: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Said]:
    """Return what is said of each wrong table of a VM."""
    folder, names = tmp_path_factory.mktemp("wrong"), list[str]()
    for number, (wrong, _) in enumerate(WRONG):
        names.append(f"{number}.toml")
        (folder / names[-1]).write_text(
            '[host]\ncpu = "slow-exits"\n[[vm]]\nname = "a"\nmemory = "1MiB"\n'
            + wrong
            + '\nworkload = { kind = "bounce", footprint = "64KiB", rounds = 2 }\n'
        )
    said = commands(*(["run", name] for name in names), folders=site, cwd=folder)
    return dict(zip((wrong for wrong, _ in WRONG), said, strict=True))


@pytest.mark.parametrize(("wrong", "right"), WRONG)
def test_what_is_wrong_is_said_as_of_vmsims_own_modes(refused: dict[str, Said], wrong: str, right: str) -> None:
    status, _, said = refused[wrong]
    assert status == 2
    assert right in said
    assert "Traceback" not in said


def test_an_unknown_workload_cpu_and_mode_have_the_nearest_registered_choice(
    site: tuple[Path, Path], tmp_path: Path, file: Path
) -> None:
    kind, cpu, mode = commands(
        ["run", str(file), "--set", "vm.c.workload.kind=bounse"],
        ["run", str(file), "--set", "host.cpu=slow-exit"],
        ["compare", str(file), "--modes", "ept,prefalt"],
        folders=site,
        cwd=tmp_path,
    )
    for (status, _, said), near in ((kind, "bounce"), (cpu, "slow-exits"), (mode, "prefault")):
        assert status == 2
        assert f"'{near}'" in said


def test_the_schema_and_the_list_of_cpus_have_what_is_registered(site: tuple[Path, Path], tmp_path: Path) -> None:
    (_, said, _), (_, cpus, _) = commands(["schema", "--json"], ["cpus", "--json"], folders=site, cwd=tmp_path)
    group = json.loads(said)["$defs"]["VmGroup"]["properties"]
    assert "prefault" in group["mode"]["enum"]
    assert group["prefault"]["description"] == "What mode prefault maps at a violation."
    assert "bounce" in said
    assert "slow-exits" in {cpu["name"] for cpu in json.loads(cpus)["cpus"]}


BROKEN = [
    ("nowhere.mode:MODE", "ModuleNotFoundError: No module named 'nowhere'"),
    ("prefault.mode:NONE", "AttributeError"),
    ("prefault.mode:Window", "expected an instance of a subclass of vmsim.scenario.modes.PagingMode"),
    ("prefault.mode:PREFAULT", "it calls itself 'prefault'"),
]


@pytest.fixture(scope="module")
def torn(tmp_path_factory: pytest.TempPathFactory) -> list[Said]:
    """Return what is said of each broken mode, of a package beside one that is whole; and at last the list of CPUs."""
    folder = tmp_path_factory.mktemp("torn")
    (folder / "scenario.toml").write_text(SCENARIO)
    modes = "\n".join(f"torn{number} = {target}" for number, (target, _) in enumerate(BROKEN))
    site = installed(folder / "site", "vmsim-torn", f"[vmsim.modes]\n{modes}\n", "0.3")
    folders = (installed(site, "vmsim-prefault", ENTRY_POINTS), HERE)
    lines = [["run", "scenario.toml", "--set", f"vm.a.mode=torn{number}"] for number in range(len(BROKEN))]
    return commands(*lines, ["cpus", "--json"], folders=folders, cwd=folder)


@pytest.mark.parametrize("number", range(len(BROKEN)))
def test_a_broken_package_is_named_by_who_asks_for_it_alone(torn: list[Said], number: int) -> None:
    status, _, said = torn[number]
    assert status == 2
    assert f"paging mode 'torn{number}' of package vmsim-torn 0.3" in said
    assert BROKEN[number][1] in said
    assert "Mend or uninstall vmsim-torn." in said
    assert "Traceback" not in said
    assert torn[-1][0] == 0


TRIMMED = """
import json, vmsim
from vmsim.engine.check.host import check_invariants
from vmsim.engine.simulation import Simulation
scenario = vmsim.Scenario.load("scenario.toml").replace(**{"host.trim": {"pages": 20, "every": 20_000}})
found = []
chosen = {"host.trim.pages": 0, "host.reclaim": {"rate": 100_000, "policy": "highest"}}
for more in ({}, {"host.highest.skip": 3}, chosen):
    what = scenario.replace(**more)
    simulation = Simulation(what, observers=[check_invariants])
    outcome = simulation.run()
    canonical = json.loads(what.canonical())["host"]
    found.append({
        "ending": outcome.ending,
        "finished": [vm.finished for vm in outcome.vms],
        "taken": [vm.slot.taken for vm in simulation.vms],
        "figures": [vm.figures.named("guest_memory")["taken"] for vm in outcome.vms],
        "canonical": {key: canonical.get(key) for key in ("trim", "highest", "reclaim", "packages")},
        "same": vmsim.Scenario.from_toml(what.to_toml()) == what,
    })
print(json.dumps(found))
"""


def test_a_daemon_and_a_policy_from_outside_work_with_every_invariant_checked(
    site: tuple[Path, Path], file: Path
) -> None:
    trimmed, skipping, chosen = python(TRIMMED, *site, cwd=file.parent)
    for each in (trimmed, skipping, chosen):
        assert each["ending"] is None
        assert each["finished"] == [True] * 3
        assert each["figures"] == each["taken"]
        assert each["same"]
        assert each["canonical"]["packages"] == ["vmsim-prefault 1.0"]
    assert all(taken > 0 for taken in trimmed["taken"][:2])  # each touches 32 pages, and may keep 20
    assert trimmed["canonical"]["trim"] == {"pages": 20, "every": 20_000}
    assert skipping["canonical"]["highest"] == {"skip": 3}
    assert sum(chosen["taken"]) > 0
    assert chosen["canonical"]["trim"] is None
    assert chosen["canonical"]["reclaim"]["policy"] == "highest"


UNFIT = [
    ("host.trim.page=4", "Did you mean 'pages'?"),
    ("host.trim.pages=1025", "VM a has fewer pages in all"),
    ("host.trum.pages=4", "'trim'"),
    ("host.highest.skip=4", "nothing uses policy 'highest'"),
    ("host.reclaim={rate = 1, policy = 'higest'}", "'highest'"),
]


def test_what_is_wrong_is_said_as_of_vmsims_own_daemons(site: tuple[Path, Path], tmp_path: Path, file: Path) -> None:
    lines = (["run", str(file), "--set", setting] for setting, _ in UNFIT)
    for (status, _, words), (_, said) in zip(commands(*lines, folders=site, cwd=tmp_path), UNFIT, strict=True):
        assert status == 2
        assert said in words
        assert "Traceback" not in words


BROKEN_DAEMONS = [
    ("nowhere.trim:TRIM", "ModuleNotFoundError"),
    ("prefault.trim:HIGHEST", "expected an instance of a subclass of vmsim.scenario.daemons.HostDaemon"),
    ("prefault.trim:TRIM", "it calls itself 'trim'"),
]


@pytest.mark.parametrize(("target", "why"), BROKEN_DAEMONS)
def test_a_broken_daemon_is_named_with_its_package(tmp_path: Path, file: Path, target: str, why: str) -> None:
    folder = installed(tmp_path / "site", "vmsim-torn", f"[vmsim.daemons]\ntorn = {target}\n", "0.3")
    folders = (installed(folder, "vmsim-prefault", ENTRY_POINTS), HERE)
    status, _, said = command("run", str(file), "--set", "host.torn.pages=4", folders=folders, cwd=tmp_path)
    assert status == 2
    assert "daemon 'torn' of package vmsim-torn 0.3" in said
    assert why in said
    assert "Traceback" not in said


def test_a_name_of_two_packages_is_nobodys(tmp_path: Path, file: Path) -> None:
    site = installed(tmp_path / "site", "vmsim-prefault", ENTRY_POINTS)
    installed(site, "vmsim-rival", "[vmsim.modes]\nprefault = elsewhere:MODE\n")
    status, _, said = command("run", str(file), folders=(site, HERE), cwd=tmp_path)
    assert status == 2
    assert "vmsim-rival" in said
    assert "vmsim-prefault" in said


def test_without_the_package_there_is_no_such_mode(tmp_path: Path, file: Path) -> None:
    status, _, said = command("run", str(file), folders=(), cwd=tmp_path)
    assert status == 2
    assert "'prefault'" in said


CONTRACT = """
import json
from tests.contract.hosts import VERBS, Host, small
calm = Host(small("prefault"), None, "data", 0)
told = {}
for verb in VERBS:
    for kind in ("data", "table"):
        host = Host(small("prefault"), verb, kind, 40_009)
        told[f"{verb} {kind}"] = [host.done > 5, host.seen == calm.seen, host.faults == calm.faults]
print(json.dumps(told))
"""


def test_a_mode_from_outside_keeps_the_contract_of_second_mmu(site: tuple[Path, Path], tmp_path: Path) -> None:
    told = python(CONTRACT, *site, cwd=tmp_path)
    assert len(told) >= 12
    assert {verb for verb, kept in told.items() if kept != [True] * 3} == set()
