"""Compile what most tests run, in as many processes as there are processors, each some of the paging modes.

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
    """Compile for the modes that are named, or have others compile for all."""
    if modes := sys.argv[1:]:
        from vmsim.engine.warm import warm
        from vmsim.scenario import load_cpu

        warm(load_cpu("yardstick"), modes)
        return
    command = [sys.executable, "-m", "tests.warm"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    at_once = [subprocess.Popen([*command, *modes], env=environment) for modes in SHARES]
    raise SystemExit(max(each.wait() for each in at_once))


if __name__ == "__main__":
    main()
