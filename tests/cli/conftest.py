from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

SCENARIO = """
seed = 3
[host]
cpu = "skylake-x"
cores = 1
memory = "256MiB"
[host.pool]
min = 16
max = 128
batch = 64
[[vm]]
name = "db"
count = 2
memory = "16MiB"
mode = "ept"
[vm.workload]
kind = "uniform"
footprint = "8MiB"
accesses = 20000
writes = 0.25
"""


class Said(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "scenario.toml"
    path.write_text(SCENARIO)
    return path


@pytest.fixture
def vmsim(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run a command line in this process; a traceback fails the test."""
    from vmsim.cli import main

    def say(*arguments: object) -> Said:
        with pytest.raises(SystemExit) as leaving:
            main([str(argument) for argument in arguments])
        assert isinstance(leaving.value.code, int)
        return Said(leaving.value.code, *capsys.readouterr())

    return say
