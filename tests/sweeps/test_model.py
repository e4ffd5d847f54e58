"""Has the model changed without its version? Then recorded points would be taken for what they no longer are.

This does not say that the figures are right: other tests do. It only notices that they are others than before. If that
is meant, add 1 to `vmsim.sweeps.points.MODEL` and put the new fingerprint here.
"""

from __future__ import annotations

import hashlib
import json

from vmsim.engine.run import simulate
from vmsim.record.tables import rows
from vmsim.scenario import Scenario
from vmsim.sweeps.points import MODEL

FINGERPRINTS = {
    1: "69f466a98900bbdd",
    2: "69f466a98900bbdd",
    3: "69f466a98900bbdd",
    4: "69f466a98900bbdd",
    5: "69f466a98900bbdd",
    6: "ef2b8082e4c2bf30",
    7: "ef2b8082e4c2bf30",
    8: "ef2b8082e4c2bf30",
    9: "ef2b8082e4c2bf30",
    10: "c7d942e3e23dbb34",
    11: "c7d942e3e23dbb34",
    12: "c7d942e3e23dbb34",
}
COLUMNS = ("vm", "accesses", "l1_tlb_misses", "l2_tlb_misses", "walk_refs", "guest_faults", "exits", "total_cycles")
SCENARIO = """
seed = 7
[host]
cpu = "skylake-x"
what_if = true
cores = 2
memory = "64MiB"
pool = { min = 4, max = 64, batch = 16 }
[[vm]]
name = "bare"
memory = "4MiB"
mode = "native"
workload = { kind = "zipf", footprint = "2MiB", accesses = 5000, writes = 0.5 }
[[vm]]
name = "small"
count = 2
memory = "8MiB"
mode = "ept"
workload = { kind = "uniform", footprint = "4MiB", accesses = 5000 }
[[vm]]
name = "large"
memory = "8MiB"
mode = "npt"
guest_page = "2M"
workload = { kind = "gups", footprint = "8MiB", updates = 2000 }
"""


def test_new_figures_come_with_a_new_version_of_the_model() -> None:
    made = [[row[column] for column in COLUMNS] for row in rows("summary", simulate(Scenario.from_toml(SCENARIO)))]
    fingerprint = hashlib.sha256(json.dumps(made).encode()).hexdigest()[:16]
    assert fingerprint == FINGERPRINTS[MODEL], "add 1 to MODEL, and put the new fingerprint here"
