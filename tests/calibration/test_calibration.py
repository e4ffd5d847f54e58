"""Is a machine found again from curves that it would have, and does nobody measure where that cannot be?"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import vmsim.calibration.api as api
from vmsim.base.errors import InputError
from vmsim.calibration.derive import derive, reaches, toml_of
from vmsim.calibration.disturbance import Disturbance, Reading
from vmsim.calibration.explain import Modelled, explain
from vmsim.calibration.measure import measure, refuse
from vmsim.calibration.measured import Measured, robust
from vmsim.cli.calibrate import command
from vmsim.scenario import load_cpu

GHZ = 2.0
COUNTS = [16, 24, 32, 48, 64, 88, 128, 184, 256, 360, 512, 728, 1024, 1448, 2048, 2896, 4096, 5792, 8192]
CACHES = {"l1": 32 << 10, "l2": 256 << 10, "llc": 8 << 20}


def level(pages: int) -> float:
    """Cycles of translation on sandy-bridge: 64 and 512 entries, 7 cycles for a hit in the second, walks from 20 on."""
    return 0.0 if pages <= 64 else 7.0 if pages <= 512 else 20 + 4 * np.log2(pages / 512)


def latency(kib: int) -> float:
    return 4.0 if kib <= 32 else 12.0 if kib <= 256 else 30.0 if kib <= 8192 else 200.0


def machine(scale: float = 1.0, noise: float = 0.2) -> Measured:
    """Return what a machine of 2 GHz would show, with noise of some tenths of a cycle."""
    random = np.random.default_rng(1)

    def samples(cycles: float) -> list[float]:
        return [(cycles + noise * random.standard_normal()) / GHZ for _ in range(9)]

    return Measured(
        cpu="a CPU",
        kernel="6.8",
        preset="sandy-bridge",
        hertz=round(GHZ * 1e9),
        virtual=False,
        caches=CACHES,
        loads={kib: samples(latency(kib)) for kib in (8, 16, 64, 128, 512, 1024, 4096, 65536)},
        small={count: samples(5 + scale * level(count)) for count in COUNTS},
        large={count: samples(5) for count in COUNTS},
        operations={"zero": samples(300), "page_fault": samples(2000), "ipi": samples(2000)},
    )


def test_latencies_reaches_and_costs_of_a_known_machine_are_found() -> None:
    found, knees = derive(machine())
    assert (knees.first, knees.second) == ((64, 88), (512, 728))
    values = {each.key: each.value for each in found}
    assert [values[f"cache.{name}.cycles"] for name in ("l1", "l2", "llc")] == [4, 12, 30]
    assert values["memory.cycles"] == 200
    assert (values["tlb.l1.4K.entries"], values["tlb.l2.4K.entries"], values["tlb.l2_cycles"]) == (64, 512, 7)
    assert values["cost.zero_page"] == 300
    delivery = load_cpu("sandy-bridge").cost.fault_delivery
    assert values["cost.guest_fault"] == pytest.approx(2000 - 300 - delivery, abs=2)
    assert sum(values[f"cost.ipi_{part}"] for part in ("send", "latency", "handle")) == pytest.approx(2000, abs=2)


def test_a_larger_tlb_is_found_to_be_larger() -> None:
    """The preset has 512 entries in 4 ways; a machine whose curve rises at 2048 pages has 1448 to 2048."""
    curve = {count: 0.0 if count <= 64 else 7.0 if count <= 2048 else 30.0 + count / 1024 for count in COUNTS}
    assert reaches(curve).second == (2048, 2896)
    made = machine()
    small = {count: [(5 + cycles) / GHZ] * 9 for count, cycles in curve.items()}
    values = {each.key: each.value for each in derive(replace(made, small=small))[0]}
    assert values["tlb.l2.4K.entries"] == 2048


def test_a_second_tlb_whose_hits_cost_nothing_is_not_taken_for_the_first() -> None:
    curve = {count: 0.0 if count <= 512 else 20.0 + count / 512 for count in COUNTS}
    knees = reaches(curve, 512)
    assert (knees.first, knees.second) == ((0, 0), (512, 728))


def test_a_flat_curve_has_no_knee() -> None:
    assert reaches(dict.fromkeys(COUNTS, 0.1)).second == (0, 0)
    with pytest.raises(InputError, match="6 at least"):
        reaches({16: 0.0, 32: 1.0})


MODELS: Modelled = {
    "native": ({count: level(count) for count in COUNTS if count > 512}, 2000.0),
    "nested": ({count: 2.2 * level(count) for count in COUNTS if count > 512}, 2000.0),
    "shadow": ({count: level(count) for count in COUNTS if count > 512}, 9000.0),
}


@pytest.mark.parametrize(
    ("scale", "fault", "mode"), [(1.0, 2000, "native"), (2.2, 2000, "nested"), (1.0, 9000, "shadow")]
)
def test_the_mode_that_a_machine_runs_in_is_told(scale: float, fault: float, mode: str) -> None:
    """Walks tell one dimension from two; a shadow's walks are native, and its faults are dear."""
    made = replace(machine(scale), operations={"page_fault": [fault / GHZ] * 9})
    told = explain(made, MODELS)
    assert told.best == mode
    assert told.share[mode] > 0.95
    assert told.off[mode] < 0.1
    assert sum(told.share.values()) == pytest.approx(1)


def test_a_machine_between_two_modes_is_not_sure() -> None:
    told = explain(replace(machine(1.6, noise=8.0), operations={}), MODELS)
    assert max(told.share["native"], told.share["nested"]) < 0.999
    assert explain(replace(machine(9.0), operations={}), MODELS).off["nested"] > 1  # and none explains this one
    assert "none explains it well" in str(explain(replace(machine(9.0), operations={}), MODELS))


def test_the_file_is_a_cpu_with_every_figure_measured_here(tmp_path: Path) -> None:
    made = machine()
    found, _ = derive(made)
    path = tmp_path / "here.toml"
    path.write_text(toml_of(made, found, "here"), encoding="utf-8")
    cpu = load_cpu(path)
    figures = {figure.key: figure for figure in cpu.figures()}
    for each in found:
        figure = figures[each.key]
        assert figure.value == each.value
        assert figure.confidence == "measured"
        assert figure.source.startswith("measured here by ")
    assert cpu.name == "here"
    assert cpu.pwc == load_cpu("sandy-bridge").pwc  # of which nothing was measured


def test_measurements_come_back_as_they_were_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "modelled", lambda *_: MODELS)
    made = machine()
    saved = tmp_path / "samples.json"
    saved.write_text(json.dumps(made.to_json()))
    assert Measured.from_json(saved.read_text(), "samples.json") == made
    paths = [str(tmp_path / name) for name in ("here.toml", "again.json", "curves.svg")]
    given = ["--from", str(saved), "--out", paths[0], "--save", paths[1], "--figure", paths[2]]
    said = CliRunner().invoke(command, given, standalone_mode=False, catch_exceptions=False)
    assert "native explains this machine best" in said.output
    assert Measured.from_json(Path(paths[1]).read_text(), "again.json") == made
    assert load_cpu(paths[0]).cost.zero_page == 300
    told = json.loads(CliRunner().invoke(command, ["--from", str(saved), "--json"], standalone_mode=False).output)
    assert told["explained"]["best"] == "native"
    assert {each["mode"] for each in told["simulated"]} == {*MODELS}
    with pytest.raises(InputError, match="--force"):
        CliRunner().invoke(command, given, standalone_mode=False, catch_exceptions=False)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "other"}'])
def test_what_is_no_measurement_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="no measurements of vmsim calibrate"):
        Measured.from_json(text, "x.json")


def test_where_it_cannot_measure_it_says_why() -> None:
    with pytest.raises(InputError, match="this is darwin"):
        refuse("darwin")
    with pytest.raises(InputError, match="never made here"):
        refuse("linux", "always madvise [never]")
    refuse("linux", "always [madvise] never")


def test_one_wild_sample_moves_nothing() -> None:
    assert robust([1.0, 1.0, 1.1, 1.1, 900.0])[0] == 1.1


def test_what_others_had_meanwhile_is_told() -> None:
    """In 10 s two CPUs ran 14 s, 9 of them for this program, which waited 1 s; a hypervisor took half a second."""
    begin = Reading(time=100.0, busy=50.0, stolen=1.0, ours=3.0, waited=0.5)
    end = Reading(time=110.0, busy=64.0, stolen=1.5, ours=12.0, waited=1.5)
    told = Disturbance.between(begin, end)
    assert told == (0.5, 0.1, 0.05)
    assert told.much
    said = (
        "other programs kept 0.5 CPUs busy, this one waited for its CPU 10% of the time, the hypervisor took 0.05 CPUs"
    )
    assert str(told).startswith(said)
    assert not Disturbance(0.05, 0.01, 0.01).much


def test_the_kernels_counts_are_read(tmp_path: Path) -> None:
    """proc_stat(5): user, nice, system, idle, iowait, irq, softirq, steal; schedstat: run, wait, slices."""
    tick = os.sysconf("SC_CLK_TCK")
    (tmp_path / "self").mkdir()
    (tmp_path / "stat").write_text(
        f"cpu  {5 * tick} {tick} {2 * tick} 900 90 {tick} {tick} {3 * tick} 0 0\ncpu0 1 2 3\n"
    )
    (tmp_path / "self" / "schedstat").write_text("123 4000000000 5\n")
    told = Reading.now(tmp_path)
    assert (told.busy, told.stolen, told.waited) == (10.0, 3.0, 4.0)
    assert Reading.now(tmp_path / "none")[1:3] == (0.0, 0.0)


def test_a_disturbed_measurement_says_so_wherever_its_figures_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "modelled", lambda *_: MODELS)
    made = replace(machine(), disturbance=Disturbance(0.9, 0.4, 0.0))
    text = toml_of(made, derive(made)[0], "here")
    path = tmp_path / "here.toml"
    path.write_text(text, encoding="utf-8")
    measured = [figure for figure in load_cpu(path).figures() if figure.source.startswith("measured here")]
    assert measured
    assert all("disturbed: other programs kept 0.9 CPUs busy" in figure.source for figure in measured)
    assert "# Disturbed: other programs kept 0.9 CPUs busy, this one waited for its CPU 40% of the time." in text
    saved = tmp_path / "samples.json"
    saved.write_text(json.dumps(made.to_json()))
    assert Measured.from_json(saved.read_text(), "samples.json") == made
    said = CliRunner().invoke(command, ["--from", str(saved)], standalone_mode=False, catch_exceptions=False)
    assert "Disturbed: other programs kept 0.9 CPUs busy" in said.output
    for quiet in (machine(), replace(machine(), disturbance=Disturbance(0.01, 0.0, 0.0))):
        assert "isturbed" not in toml_of(quiet, derive(quiet)[0], "here")


def test_the_core_may_run_faster_than_what_counts_cycles() -> None:
    """A machine of 2 GHz whose core takes 0.25 ns for a cycle."""
    assert machine().clock == 0
    assert replace(machine(), operations={"cycle": [0.25, 0.25, 9.0]}).clock == 4e9


@pytest.mark.slow
def test_this_machine_is_measured() -> None:
    """Only what is there, not how much: other programs run."""
    made = measure(quick=True)
    assert made.small.keys() == made.large.keys()
    assert len(made.loads) > 10
    assert all(value > 0 for samples in made.loads.values() for value in samples)
    assert {"cycle", "zero", "copy", "page_fault", "fork", "compress"} <= made.operations.keys()
    assert "ipi" in made.operations or made.skipped["ipi"]
    assert made.disturbance is not None
    found, _ = derive(made)
    assert found
