"""When may a process become a VM, by how many accesses it makes?"""

from __future__ import annotations

from pathlib import Path

import pytest

from vmsim.api import run
from vmsim.base.errors import InputError

SCENARIO = """
[host]
memory = "64MiB"
[[vm]]
name = "a"
memory = "8MiB"
mode = "paired"
paired = {{ guest_at = {at} }}
workload = {{ kind = "trace", path = "t.csv" }}
"""


@pytest.mark.parametrize(
    ("accesses", "at", "told"),
    [
        (1, 1, "makes one access: it cannot become a VM between two. Expected a workload of 2 accesses or more"),
        (1, '"50%"', "makes one access"),
        (2, 2, "Expected 1 to 1"),
        (3, '"1%"', "Expected 1 to 2"),
        (2, 1, ""),
        (3, 2, ""),
    ],
)
def test_a_process_becomes_a_vm_between_two_accesses_or_is_told_why_not(
    accesses: int, at: int | str, told: str, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text("address\n" + "".join(f"{page << 12}\n" for page in range(16, 16 + accesses)))
    (tmp_path / "s.toml").write_text(SCENARIO.format(at=at))
    if told:
        with pytest.raises(InputError, match=told):
            run(tmp_path / "s.toml")
    else:
        assert run(tmp_path / "s.toml").summary["accesses"].tolist() == [accesses]


def test_it_does_so_on_one_core(tmp_path: Path) -> None:
    """The other vCPUs would stay in the process's own tables, and fault there for ever."""
    (tmp_path / "t.csv").write_text("address\n65536\n69632\n")
    (tmp_path / "s.toml").write_text(SCENARIO.format(at=1) + "vcpus = 2\n")
    with pytest.raises(InputError, match=r"vm\.0\.vcpus \(a\): found 2, but a process that becomes a VM.* Expected 1"):
        run(tmp_path / "s.toml")
