"""Do guests and hosts with PAE tables run, and differ from others only where they should?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.simulation.small import PAGE, READ, WRITE, Script, run, scenario, time_adds_up, touches, vm
from vmsim.base.errors import InputError
from vmsim.engine.simulation import Simulation
from vmsim.machine.formats import FRAME, PRESENT, SWITCH
from vmsim.tables.edit import translate

BASE = (1 << 30) - 8 * PAGE  # the scripts' pages lie on both sides of a boundary between two PDPTEs
FAMILY: list[Any] = [
    *touches(range(20), WRITE),
    ("fork", 2),
    ("switch", 2),
    *touches(range(0, 20, 3), WRITE),
    ("exec", 2),
    *touches(range(10)),
    ("switch", 1),
    *touches(range(0, 20, 2), WRITE),
    ("unmap", 4, 6),
    ("exit", 2),
    *touches(range(20)),
]
PLATFORMS = [("native", None), ("ept", 4), ("ept", 5), ("npt", 3), ("npt", 4), ("npt", 5)]
PLATFORMS += [("shadow", None), ("agile", 4), ("vkernel", None)]


def a_vm(mode: str, host: int | None, guest: int = 3, **keys: Any) -> dict[str, Any]:
    levels = {"guest_levels": guest} | ({"host_levels": host} if host else {})
    return vm(mode=mode, workload={"base": BASE}, **levels, **keys)


@pytest.mark.parametrize(("mode", "host"), PLATFORMS)
@pytest.mark.parametrize("page", ["4K", "2M"])
def test_processes_of_a_pae_guest_do_what_those_of_a_64_bit_guest_do(mode: str, host: int | None, page: str) -> None:
    """The invariants are checked at every boundary: what TLBs and walk caches hold is what the tables say."""
    roots = []

    def registers_hold(simulation: Simulation, _: str = "") -> None:
        machine, registers = simulation.vms[0], simulation.vms[0].registers[0]
        if machine.kernel.root < 0 or machine.gone or mode == "npt" or not registers["pdpte"].any():
            return
        nested = int(registers["nested_root"]), int(registers["nested_levels"])
        if mode == "agile":  # CR3 names a page of the monitor's, by its hpa
            nested = 0, 0
        memory = simulation.hardware.memory
        root = translate(memory, *nested, int(registers["cr3"])) >> 3
        assert registers["pdpte"].tolist() == memory[root : root + 4].tolist()
        assert all(int(entry) & ~FRAME & ~SWITCH == PRESENT for entry in registers["pdpte"])
        roots.append(tuple(registers["pdpte"].tolist()))

    pages = {"guest_page": page, "memory": "32MiB" if page == "2M" else "4MiB"}
    what = scenario(a_vm(mode, host, **pages), memory="64MiB", what_if=True)
    simulation, outcome = run(what, [Script(FAMILY, base=BASE)], every=50_000, look=registers_hold)
    _, served = run(what, [Script(FAMILY, base=BASE)], check=None)  # faults handled in compiled code, where they can be
    assert served.vms[0].cycles == outcome.vms[0].cycles
    assert served.vms[0].refs.tolist() == outcome.vms[0].refs.tolist()
    wide = scenario(a_vm(mode, max(host or 4, 4) if host else None, 4, **pages), memory="64MiB", what_if=True)
    _, expected = run(wide, [Script(FAMILY, base=BASE)])
    figures, others = outcome.vms[0], expected.vms[0]
    for name in ("accesses", "writes"):
        assert figures.counters[name] == others.counters[name]
    assert figures.guest_faults == others.guest_faults
    assert time_adds_up(outcome)
    assert simulation.host.free == simulation.host.size
    walked = figures.refs[3].sum() if mode == "npt" else 0
    assert bool(walked) == (mode == "npt")  # else the first level is in registers
    assert figures.refs[3].sum() == walked
    assert figures.refs[4:].sum() == 0
    assert figures.refs[:, 4:].sum() == 0 or host != 3
    assert mode == "npt" or len({*roots}) > 1  # CR3 was loaded anew, and the registers with it


@pytest.mark.parametrize("levels", [2, 3])
def test_a_workload_beyond_three_gib_is_refused(levels: int) -> None:
    what = scenario(a_vm("native", None, levels))

    class Wide(Script):
        def footprint(self) -> tuple[np.ndarray, np.ndarray]:
            return np.array([0xBFFF_F000]), np.array([2 * PAGE])

    with pytest.raises(InputError, match=f"touches the address 0xc000_0000, and a guest of {levels} levels"):
        Simulation(what, streams=[Wide(touches([0], READ), base=BASE)])
