"""The C yardstick: build it, run it, read what it counted."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

__all__ = ["Counted", "Reference", "compiler"]

SOURCE = Path(__file__).parent / "yardstick" / "walk.c"


def compiler() -> str | None:
    """Return the C compiler's path, or None where there is none."""
    return shutil.which("gcc") or shutil.which("clang")


@dataclass(frozen=True)
class Counted:
    """What a simulator of the yardstick's machine counted, and how fast it was.

    Attributes
    ----------
    exact : dict of str to int
        TLB hits and misses of each level, walks of both dimensions together.
    near : dict of str to int
        Page walk caches, nested TLB, references and where they were served, their latency: may differ a little where
        frames are numbered differently.
    seconds : float
        Processor time in user mode.
    """

    exact: dict[str, int]
    near: dict[str, int]
    seconds: float = field(compare=False, default=0.0)


class Reference:
    """The yardstick, compiled for one dimension or two into a folder.

    Raises
    ------
    RuntimeError
        There is no C compiler, or it refuses the source.
    """

    def __init__(self, folder: Path, *, nested: bool) -> None:
        command = compiler()
        if command is None:
            raise RuntimeError("the yardstick needs gcc or clang, and neither is installed")
        self.program = folder / ("walk_nested" if nested else "walk_native")
        flags = ["-O3", "-march=native", *(["-DNESTED"] if nested else [])]
        made = subprocess.run(
            [command, *flags, SOURCE, "-o", self.program], capture_output=True, text=True, check=False
        )
        if made.returncode:
            raise RuntimeError(f"{command} cannot compile {SOURCE}: {made.stderr.strip()}")

    def run(self, trace: Path) -> Counted:
        """Run it on raw little-endian u64 addresses."""
        text = subprocess.run(
            [self.program, trace], capture_output=True, text=True, check=True, env={**os.environ, "STATS": "1"}
        ).stdout
        pairs = {name: (int(hit), int(miss)) for name, hit, miss in _pairs().findall(text)}
        exact = {
            "tlb1_hits": pairs["tlb1"][0],
            "tlb1_misses": pairs["tlb1"][1],
            "tlb2_hits": pairs["tlb2"][0],
            "tlb2_misses": pairs["tlb2"][1],
            "walks": _number(text, "walks"),
        }
        near = {f"served_{place}": _number(text, place) for place in ("L1", "L2", "LLC", "DRAM")}
        near["references"] = sum(near.values())
        near["latency"] = _number(text, "lat")
        for name, (hits, misses) in pairs.items():
            if not name.startswith("tlb"):
                near |= {f"{name}_hits": hits, f"{name}_misses": misses}
        return Counted(exact, near, float(re.search(r"user=([\d.]+)", text)[1]))  # type: ignore[index]


@cache
def _pairs() -> re.Pattern[str]:
    return re.compile(r"(\w+) (\d+)/(\d+)")


def _number(text: str, name: str) -> int:
    found = re.search(rf"\b{name} (\d+)", text)
    if found is None:
        raise RuntimeError(f"the yardstick printed no {name}: {text!r}")
    return int(found[1])
