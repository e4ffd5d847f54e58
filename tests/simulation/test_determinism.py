"""Do results depend on the scenario alone?"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.simulation.small import PAGE, digest, run, scenario, told, vm
from vmsim.scenario import Scenario

ROOT = Path(__file__).parents[2]


def busy_host(*, order: tuple[int, ...] = (0, 1, 2), prefix: str = "", **keys: Any) -> Scenario:
    """Return three unlike VMs that contend for two cores and for memory."""
    zipf = {"kind": "zipf", "footprint": 300 * PAGE, "accesses": 4000, "writes": 0.3}
    uniform = {"kind": "uniform", "footprint": 200 * PAGE, "accesses": 3000}
    vms = [
        vm(f"{prefix}db", workload=zipf),
        vm(f"{prefix}web", mode="npt", workload=uniform, start="20us"),
        vm(f"{prefix}bare", mode="native", workload=zipf),
    ]
    return scenario(*(vms[place] for place in order), cores=2, memory="8MiB", quantum="50us", warmup="10%", **keys)


def test_the_same_scenario_gives_the_same_bytes() -> None:
    first, second = (digest(run(busy_host())[1]) for _ in range(2))
    assert first == second


def test_the_checks_change_nothing() -> None:
    assert digest(run(busy_host())[1]) == digest(run(busy_host(), check=None)[1])


def test_another_seed_gives_other_figures() -> None:
    """Or the tests above could not fail."""
    assert digest(run(busy_host())[1]) != digest(run(busy_host(seed=2))[1])


def test_names_do_not_matter() -> None:
    _, plain = run(busy_host())
    _, renamed = run(busy_host(prefix="z9-"))
    for vms in (plain.vms, renamed.vms):
        for each in vms:
            each.group = each.name
    assert told(plain) == told(renamed).replace("z9-", "")


def test_a_vm_alone_on_its_core_computes_the_same_wherever_it_stands() -> None:
    """The order of VMs decides seeds, frames and ties, but not what a VM with a fixed stream does."""
    keys: Any = {"workload": {"footprint": 64 * PAGE, "accesses": 64}}
    there = [vm("a", **keys), vm("b", mode="npt", **keys)]
    outcomes = [run(scenario(*vms, cores=2))[1] for vms in (there, there[::-1])]
    figures = [{each.name: (each.counters, each.guest_faults, each.exits) for each in one.vms} for one in outcomes]
    assert figures[0] == figures[1]


PROGRAM = """
from tests.simulation.test_determinism import busy_host
from tests.simulation.small import digest, run, told
print(digest(run(busy_host())[1]))
"""


def in_another_process(python: str = sys.executable, **environment: str) -> str:
    done = subprocess.run(
        [python, "-c", PROGRAM],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.parametrize("seed", ["0", "1"])
def test_the_hash_seed_does_not_matter(seed: str) -> None:
    assert in_another_process(PYTHONHASHSEED=seed) == digest(run(busy_host())[1])


@pytest.mark.slow
def test_compilation_does_not_matter() -> None:
    """The kernels as plain Python give the same bytes."""
    assert in_another_process(NUMBA_DISABLE_JIT="1") == digest(run(busy_host())[1])


@pytest.mark.slow
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_the_python_version_does_not_matter(version: str) -> None:
    if sys.version.startswith(version):
        pytest.skip("this one runs the tests")
    python = os.environ.get(f"VMSIM_PYTHON_{version.replace('.', '_')}") or shutil.which(f"python{version}")
    if (
        python is None
        or subprocess.run([python, "-c", "import vmsim.engine.simulation"], cwd=ROOT, capture_output=True).returncode
    ):
        pytest.skip(f"no Python {version} with vmsim's dependencies")
    assert in_another_process(python) == digest(run(busy_host())[1])


TOLERANCE = 0.02
TLB_ENTRIES = 64 + 1536


def two_vms(modes: tuple[str, str], populate: str, **host: Any) -> list[tuple[int, int, int]]:
    """Return (translation cycles, walks, waits for a core) of two VMs that touch more than the TLB holds."""
    workload = {"kind": "zipf", "footprint": 4000 * PAGE, "accesses": 200_000, "writes": 0.2, "compute": 20}
    keys: Any = {"memory": "32MiB", "populate": populate, "workload": workload}
    vms = (vm(f"vm{n}", mode=mode, **keys) for n, mode in enumerate(modes))
    _, outcome = run(scenario(*vms, memory="128MiB", **host), check=None)
    return [
        (
            sum(each.cycles[cause] for cause in ("walk_guest", "walk_nested", "l2_tlb")),
            each.counters["walks"],
            each.waits["pcpu_wait"],
        )
        for each in outcome.vms
    ]


@pytest.mark.parametrize("modes", [("ept", "ept"), ("npt", "native")])
@pytest.mark.parametrize("populate", ["lazy", "eager"])
def test_half_the_quantum_moves_translation_by_less_than_2_percent(modes: tuple[str, str], populate: str) -> None:
    """Each VM on its core: what one evicts from the LLC, a table or data, the other sees a slice later."""
    long, short = (two_vms(modes, populate, cores=2, quantum=each, data_caches=True) for each in ("1ms", "500us"))
    for (cycles, *_), (halved, *_) in zip(long, short, strict=True):
        assert abs(halved - cycles) < TOLERANCE * cycles


@pytest.mark.parametrize("modes", [("ept", "ept"), ("npt", "native")])
def test_on_one_core_half_the_quantum_costs_at_most_a_tlb_refill_for_each_switch(
    modes: tuple[str, str],
) -> None:
    long, short = (two_vms(modes, "eager", quantum=each) for each in ("500us", "250us"))
    assert long != short
    for (_, walks, waits), (_, halved, more) in zip(long, short, strict=True):
        assert more > waits > 3  # they do interleave
        assert halved - walks <= (more - waits) * TLB_ENTRIES
        assert walks <= halved + walks // 50
