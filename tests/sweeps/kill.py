"""Kill drivers and workers at random moments, resume, and compare with a run that nobody disturbed.

    python -m tests.sweeps.kill 50

`crashes` does it at chosen calls to the operating system, in the middle of writes; `kills` at random moments.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.sweeps.fake import contents

ROOT = Path(__file__).parents[2]
POINTS = 80


def start(out: Path, *, jobs: int = 1, sleep: float = 0.0, crash: int = 0) -> subprocess.Popen[bytes]:
    arguments = [str(out), str(POINTS), str(jobs), str(sleep), str(crash)]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.sweeps.child", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def finish(out: Path, *, jobs: int = 1) -> None:
    """Run until done: a second driver may die too, if a worker of the first was in its way, but it must say so."""
    child = start(out, jobs=jobs)
    _, told = child.communicate(timeout=120)
    assert child.returncode == 0, told.decode()


def undisturbed(folder: Path) -> dict[str, bytes]:
    """Return what a run leaves that nobody disturbed."""
    out = folder / "undisturbed"
    finish(out)
    return contents(out)


def calls(folder: Path) -> int:
    """Return how many calls that change files a run makes."""
    child = start(folder / "counted", crash=10**9)
    told, _ = child.communicate(timeout=120)
    return int(told.split()[0])


def crash(folder: Path, number: int) -> bool:
    """Die in a certain call, and resume; return whether the driver died."""
    out = folder / f"crash-{number}"
    child = start(out, crash=number)
    child.communicate(timeout=120)
    finish(out)
    return child.returncode == -signal.SIGKILL


def kill(out: Path, chance: random.Random) -> str:
    """Kill a driver, a worker or both at a random moment; resume; return who was killed."""
    who = chance.choice(["driver", "worker", "both"])
    child = start(out, jobs=2, sleep=0.01)
    _until_begun(out, child)
    time.sleep(chance.uniform(0.0, 1.6))
    workers = _children(child.pid)
    if who != "driver" and workers:
        _kill(chance.choice(workers))
    if who != "worker":
        _kill(child.pid)
    child.communicate(timeout=120)
    if child.returncode:
        finish(out, jobs=chance.choice([1, 2]))
    return f"{who}, {'finished' if child.returncode == 0 else 'resumed'}"


def _until_begun(out: Path, child: subprocess.Popen[bytes]) -> None:
    while child.poll() is None and not (out / "journal").exists():
        time.sleep(0.005)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [each for each in map(int, text.split()) if b"spawn_main" in _command(each)]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def main() -> None:
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    folder = Path(tempfile.mkdtemp(prefix="vmsim-kill-"))
    chance = random.Random(times)
    expected = undisturbed(folder)
    told: Counter[str] = Counter()
    for number in range(times):
        out = folder / str(number)
        told[kill(out, chance)] += 1
        assert contents(out) == expected, out
        shutil.rmtree(out)
    total = calls(folder)
    for number in sorted(chance.sample(range(1, total + 1), min(times, total))):
        told["crash in a call" if crash(folder, number) else "no crash"] += 1
        assert contents(folder / f"crash-{number}") == expected, number
    for what, count in sorted(told.items()):
        print(f"{count:4} × {what}")
    print(f"All stores equal the undisturbed one, byte for byte. ({total} calls that change files in a run.)")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
