"""Is what is published whole: the types, the archive of the sources, the page of the package?"""

import email
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SNIPPET = """
import pandas as pd
import vmsim

scenario: vmsim.Scenario = vmsim.Scenario.load("scenario.toml")
result = vmsim.run(scenario, seed=3)
reveal_type(result)
summary: pd.DataFrame = result.summary
total: int = int(summary["total_cycles"].sum())
compared = vmsim.compare(scenario, ["native", "ept"])
reveal_type(compared)
reveal_type(compared.exits)
table: pd.DataFrame = vmsim.sweep(scenario, {"vm.host_page": ["4K", "2M"]})
wrong: int = vmsim.run("scenario.toml")
"""


def build(kind: str, to: Path) -> Path:
    """Return an archive that the build backend makes of the sources."""
    told = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(to)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0, told.stderr
    (made,) = to.iterdir()
    return made


@pytest.mark.slow
def test_mypy_knows_the_types_of_an_installed_vmsim(tmp_path: Path) -> None:
    env = tmp_path / "env"
    venv.create(env, with_pip=False)
    (site,) = env.glob("lib/python*/site-packages")
    with zipfile.ZipFile(build("wheel", tmp_path / "dist")) as wheel:
        wheel.extractall(site)
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    script = tmp_path / "user.py"
    script.write_text(SNIPPET)
    command = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(env / "bin" / "python")]
    outside = {name: value for name, value in os.environ.items() if name not in ("MYPYPATH", "PYTHONPATH")}
    told = subprocess.run(
        [*command, "--cache-dir", str(tmp_path / "cache"), "user.py"],
        cwd=tmp_path,
        env=outside,
        capture_output=True,
        text=True,
    )
    assert re.findall(r"Revealed type is \"(.*?)\"", told.stdout) == [
        "vmsim.record.result.Result",
        "vmsim.record.comparison.Comparison",
        "pandas.core.frame.DataFrame",
    ], told.stdout
    errors = re.findall(r"user.py:(\d+): error: .*\[(.*?)\]", told.stdout)
    assert errors == [(str(SNIPPET.count("\n")), "assignment")], told.stdout


@pytest.mark.slow
def test_the_archive_of_the_sources_has_every_file_that_make_needs(tmp_path: Path) -> None:
    with tarfile.open(build("sdist", tmp_path)) as archive:
        there = {name.partition("/")[2] for name in archive.getnames()}
    if not (ROOT / ".git").exists():
        pytest.skip("the list of files is git's, and this is no checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    kept = {name for name in listed.split("\0") if name and (ROOT / name).exists()}
    assert {"uv.lock", "Makefile", ".ci/run", "results/first-light/translation.png", "vmsim/py.typed"} <= there
    assert sorted(kept - there) == []


@pytest.mark.slow
def test_the_page_of_the_package_has_no_picture_or_link_that_only_the_repository_has(tmp_path: Path) -> None:
    with zipfile.ZipFile(build("wheel", tmp_path)) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        page = email.message_from_bytes(wheel.read(name)).get_payload()
        assert "vmsim/py.typed" in wheel.namelist()
    assert isinstance(page, str)
    assert "# vmsim" in page
    assert [link for link in re.findall(r"\]\(([^)]*)\)", page) if not link.startswith("https://")] == []
    assert "![" not in page
