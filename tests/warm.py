"""Compile what most tests run, in two processes, each some of the paging modes and some hosts with all mechanisms.

Processes that run tests would each compile all of it at once. Where everything is compiled already this takes no time
to speak of.
"""

from __future__ import annotations

import os
import subprocess
import sys

from tests.conftest import ROOT  # which says where kernels are kept

SHARES = (("ept", "agile"), ("shadow", "native", "vkernel"))  # of about the same work


def main() -> None:
    """Compile for the modes that are named, and every second host; or have others compile all."""
    if modes := sys.argv[1:]:
        from tests.machine.sample_hosts import features
        from vmsim.engine.simulation import Simulation
        from vmsim.engine.warm import warm
        from vmsim.scenario import load_cpu

        warm(load_cpu("yardstick"), modes)
        for what in features()["ept" in modes :: 2]:
            Simulation(what).run()
        return
    command = [sys.executable, "-m", "tests.warm"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    at_once = [subprocess.Popen([*command, *modes], env=environment) for modes in SHARES]
    raise SystemExit(max(each.wait() for each in at_once))


if __name__ == "__main__":
    main()
