"""Is a simulation refused that this machine has no memory for, with a figure, and is the figure right?"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.simulation.small import scenario, vm
from vmsim.base.errors import InputError
from vmsim.engine import resident as module
from vmsim.engine.resident import FRAME_BYTES, available, check_memory, most_jobs, parts_of, resident
from vmsim.engine.run import simulate
from vmsim.frames.records import FRAME_RECORD
from vmsim.monitor.shadow.mode import GFN_BYTES
from vmsim.monitor.shadow.records import GFN
from vmsim.scenario import Scenario

GIB = 1 << 30


def large(host: str, **keys: Any) -> Scenario:
    return scenario(vm(**keys), cpu="skylake-x", memory=host, what_if=True)


def test_the_records_have_the_sizes_that_the_estimate_takes() -> None:
    assert FRAME_RECORD.itemsize == FRAME_BYTES
    assert GFN.itemsize == GFN_BYTES


def test_4_tib_of_frames_take_their_records_where_all_are_used() -> None:
    """2**30 frames of 21 bytes are 21 GiB; those of frames that nobody uses take nothing."""
    what = large("4TiB")
    (host, _) = parts_of(what)
    assert host.key == "host.memory"
    assert host.size < 1 << 20
    (host, _) = parts_of(what.replace(**{"host.fragmentation": 0.5}))
    assert host.size == 21 * GIB


@pytest.mark.parametrize(
    ("keys", "key"),
    [
        ({"memory": "1TiB", "populate": "eager"}, "memory of VM vm"),
        ({"memory": "1TiB", "populate": "eager", "mode": "shadow"}, "memory of VM vm"),
        ({"memory": "4MiB", "host": {"fragmentation": 0.5}}, "host.memory"),
    ],
)
def test_what_does_not_fit_is_refused_and_the_largest_key_named(
    keys: dict[str, Any], key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = keys.pop("host", {})
    what = large("4TiB", **keys).replace(**{f"host.{name}": value for name, value in host.items()})
    monkeypatch.setattr(module, "available", lambda: (4 * GIB, "this machine"))
    with pytest.raises(InputError, match=rf"^{key}: .* take about [\d.]+ GiB .* this machine leaves 4\.0 GiB"):
        check_memory(what)
    monkeypatch.setattr(module, "available", lambda: (64 * GIB, "this machine"))
    check_memory(what)


def test_a_control_group_limits_it(tmp_path: Path) -> None:
    proc = tmp_path / "cgroup"
    proc.write_text("0::/a/b\n")
    (tmp_path / "a" / "b").mkdir(parents=True)
    for folder, limit, used in (("a", "1000000", "400000"), ("a/b", "max", "300000")):
        (tmp_path / folder / "memory.max").write_text(limit + "\n")
        (tmp_path / folder / "memory.current").write_text(used + "\n")
    assert [size for size, _ in module._cgroups(tmp_path, proc)] == [600_000]
    proc.write_text("3:cpu,memory:/a\n")
    assert [size for size, _ in module._cgroups(tmp_path, proc)] == []


def test_the_machine_has_some() -> None:
    there = available()
    assert there is not None
    assert 0 < there[0] < 1 << 60


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("MemTotal: 2048 kB\nMemAvailable:     1024 kB\n", 1 << 20),
        ("MemTotal: 2048 kB\n", None),
        ("MemAvailable:\n", None),
        ("MemAvailable: many kB\n", None),
        (None, None),
    ],
)
def test_what_linux_does_not_say_is_all_that_is_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None, left: int | None
) -> None:
    if text is not None:
        (tmp_path / "meminfo").write_text(text)
    assert module._meminfo(tmp_path / "meminfo") == left
    monkeypatch.setattr(module, "_meminfo", lambda: left)
    monkeypatch.setattr(module, "_installed", lambda: 7 << 30)
    assert module._machine() == (left or 7 << 30, "this machine")


def test_as_many_jobs_run_as_have_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "available", lambda: (10 * GIB, "this machine"))
    fits = most_jobs(3 * GIB)
    assert fits is not None
    assert fits[0] == 3
    assert (most_jobs(30 * GIB) or (0, ""))[0] == 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="setrlimit as Linux has it")
def test_a_limit_of_addresses_is_said_and_nothing_else_printed(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text(
        '[host]\ncpu = "yardstick"\nmemory = "64GiB"\n[[vm]]\nname = "a"\nmemory = "4MiB"\nmode = "native"\n'
        'workload = { kind = "uniform", footprint = "1MiB", accesses = 10 }\n'
    )

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (32 * GIB, 32 * GIB))

    done = subprocess.run(
        [sys.executable, "-c", "from vmsim.cli import main; main()", "run", str(file)],
        capture_output=True,
        text=True,
        preexec_fn=limited,
        check=False,
    )
    assert done.returncode == 2
    assert "host.memory" in done.stderr
    assert "ulimit -v" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("mode", ["ept", "shadow"])
def test_the_estimate_is_what_a_run_takes(mode: str, tmp_path: Path) -> None:
    """By the kernel's count of the most that a process has had (proc(5), VmHWM), over a run of a small VM."""
    taken = []
    simulate(large("16MiB", mode=mode, populate="eager", memory="4MiB"))  # compiles, which takes memory
    for host, memory in (("16MiB", "4MiB"), ("96GiB", "16GiB")):
        what = large(host, mode=mode, populate="eager", memory=memory)
        file = tmp_path / "s.toml"
        file.write_text(what.to_toml())
        code = (
            "from pathlib import Path; from vmsim.scenario import Scenario; "
            "from vmsim.engine.run import simulate; "
            f"simulate(Scenario.from_toml(open({str(file)!r}).read())); "
            "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"  # getrusage's is inherited
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        taken.append((int(done.stdout) << 10, resident(what)))
    (small, said_small), (big, said_big) = taken
    assert big - small <= 1.05 * (said_big - said_small) + (32 << 20)
    assert big - small >= 0.5 * (said_big - said_small)
    assert small <= 1.5 * said_small
