"""Do the batch script and the container file of the guides work: are they shell, do their commands do what is said?

There is neither SLURM nor a container engine here. What they bring is stood in for: variables of the job, ``srun``, the
files that are copied into the image. All else is what the guides have, word for word.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "docs" / "guides" / "job-arrays.md"
CONTAINER = ROOT / "docs" / "guides" / "Containerfile"
BASH = shutil.which("bash")
SWEEP = """
[base.host]
memory = "64MiB"
[[base.vm]]
name = "vm"
memory = "8MiB"
mode = "ept"
workload = { kind = "sequential", footprint = "1MiB", accesses = 512, stride = "4KiB" }
[axes]
"host.pool.batch" = [16, 32, 64, 128]
"""

pytestmark = pytest.mark.skipif(not BASH, reason="bash is missing")


class Step(NamedTuple):
    word: str
    rest: str


def steps(text: str) -> list[Step]:
    """Return the instructions of a container file: a word and what follows, its lines joined."""
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip() and not line.startswith("#")]
    return [Step(*line.split(maxsplit=1)) for line in lines]


def blocks(text: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def shell(script: str, cwd: Path, *words: str, **variables: str) -> str:
    assert BASH
    place = os.pathsep.join([str(cwd / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    made = {**os.environ, "PATH": place, "HOME": str(cwd), "PYTHONPATH": str(ROOT), **variables}
    done = subprocess.run([BASH, *words, "-c", script], cwd=cwd, env=made, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_script_is_shell(tmp_path: Path) -> None:
    scripts = blocks(GUIDE.read_text("utf-8"), "bash")
    assert len(scripts) == 1
    runs = [step.rest for step in steps(CONTAINER.read_text("utf-8")) if step.word == "RUN"]
    assert len(runs) == 2
    for script in scripts + runs:
        shell(script, tmp_path, "-n")


def test_a_container_file_has_known_instructions_in_an_order_that_an_engine_takes() -> None:
    """Dockerfile reference: FROM comes first, paths are absolute, the entry point is a JSON array of words."""
    made = steps(CONTAINER.read_text("utf-8"))
    assert [step.word for step in made] == ["FROM", "COPY", "COPY", "RUN", "ENV", "RUN", "WORKDIR", "ENTRYPOINT"]
    image = re.fullmatch(r"docker\.io/library/python:(\d+\.\d+)-slim", made[0].rest)
    assert image
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["requires-python"]
    low, high = re.findall(r"\d+\.(\d+)", wanted)
    assert int(low) <= int(image[1].split(".")[1]) < int(high)
    assert made[-1].rest == '["vmsim"]'
    assert all(step.rest.split()[-1].startswith("/") for step in made if step.word in ("COPY", "WORKDIR"))


@pytest.mark.slow
def test_what_a_container_file_copies_is_all_that_the_package_is_built_from(tmp_path: Path) -> None:
    for step in steps(CONTAINER.read_text("utf-8")):
        if step.word == "COPY":
            *sources, target = step.rest.split()
            for source in sources:
                copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
                place = tmp_path / target[1:]
                place.mkdir(parents=True, exist_ok=True) if target.endswith("/") else None
                copy(ROOT / source, place)
    built = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(built, cwd=tmp_path / "src", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [*tmp_path.glob("vmsim-*.whl")]


@pytest.mark.slow
def test_a_job_array_of_the_guide_gives_the_whole_sweep(tmp_path: Path) -> None:
    """The script of the guide as three tasks, and its line that merges, against the sweep in one."""
    (tmp_path / "bin").mkdir()
    stand_in = tmp_path / "bin" / "srun"
    stand_in.write_text('#!/bin/sh\nexec "$@"\n')
    stand_in.chmod(0o755)
    (tmp_path / "sweep.toml").write_text(SWEEP)
    text = GUIDE.read_text("utf-8")
    (script,) = blocks(text, "bash")
    cache = re.search(r"^export NUMBA_CACHE_DIR=.*\n", script, re.MULTILINE)
    assert cache
    script = script.replace(cache[0], "")  # the tests' own kernels
    tasks = re.search(r"^#SBATCH --array=1-(\d+)$", script, re.MULTILINE)
    assert tasks
    for task in ("1", "2", "3"):
        job = {"SLURM_ARRAY_TASK_ID": task, "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_CPUS_PER_TASK": "1"}
        shell(script, tmp_path, "-eu", **job)
    merge = re.search(rf"^    (vmsim results merge \$\(.*of-{tasks[1]}\.results.*)$", text, re.MULTILINE)
    assert merge
    shell(merge[1].replace(f"of-{tasks[1]}", "of-3"), tmp_path)
    whole = "vmsim sweep sweep.toml --out whole --jobs 1 && vmsim results export sweep.results merged.csv"
    shell(f"{whole} && vmsim results export whole whole.csv", tmp_path)
    assert "4 were there" in shell("vmsim sweep sweep.toml --jobs 1", tmp_path)
    assert (tmp_path / "merged.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
