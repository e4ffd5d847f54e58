"""Does an error that is planted in a walker, a cost or a queue turn verdicts red?"""

from __future__ import annotations

import json
import os
import subprocess
import sys

from vmsim.scenario import load_cpu
from vmsim.validation.adams_agesen import Nanobench, operations
from vmsim.validation.report import Report

# The page table's own entry is read once more. Kernels are not compiled, so that one of them can be replaced.
WALKER = """
import json
import vmsim.machine.walker as walker
from vmsim.validation.reference_counts import predict

read = walker.fetch
def fetch(*arguments):
    if arguments[8:] == (1, 0):
        read(*arguments)
    return read(*arguments)

right = [claim.ok for claim in predict().claims]
walker.fetch = fetch
print(json.dumps([right, [claim.ok for claim in predict().claims]]))
"""


def test_a_walker_that_reads_one_entry_more_is_red() -> None:
    """In the rows whose guest maps by 4 KiB, an entry of whose tables is its own: all but 2M, 1G and the shadow."""
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run([sys.executable, "-c", WALKER], env=environment, capture_output=True, text=True, check=True)
    right, planted = json.loads(done.stdout)
    assert len(right) == 16
    assert all(right)
    assert planted.count(False) == 12


def test_a_cost_that_is_doubled_is_red() -> None:
    cost = load_cpu("p4-672").cost.violation_resume
    right = operations(Nanobench("p4-672"))
    wrong = operations(Nanobench("p4-672", **{"host.cpu_override.cost.violation_resume": 2 * cost}))
    known = {"P4-672 in, cycles": "the emulation of a device is not known"}
    assert Report("", "", {}, right, known=known).unexpected == []
    assert Report("", "", {}, wrong, known=known).unexpected
