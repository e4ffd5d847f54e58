"""Does the command line end in order whenever it is stopped, and load nothing of the folder it is called in?"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SWEEP = """
base = "scenario.toml"
replicates = 4
[axes]
"host.pool.min" = [16, 32]
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """The command as it is installed."""
    path = tmp_path / "bin" / "vmsim"
    path.parent.mkdir()
    script = "import sys\nfrom vmsim.cli import main\nif __name__ == '__main__':\n    sys.exit(main())\n"
    path.write_text(f"#!{sys.executable}\n{script}")
    path.chmod(0o755)
    return path


def started(program: Path, *arguments: object, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,  # type: ignore[call-overload]
    )


@pytest.mark.parametrize("after", ["vmsim", "click", pytest.param("numba", marks=pytest.mark.slow)])
def test_ctrl_c_while_modules_are_imported_is_one_line(program: Path, file: Path, after: str) -> None:
    hook = (
        "import os, signal, sys\n"
        "class Press:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {f'{after}.cli' if after == 'vmsim' else after!r}:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Press())\n"
    )
    program.write_text(program.read_text().replace("import sys\n", hook))
    with started(program, "run", file) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "interrupted\n")


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.5, 1.0, 1.5, 2.5])
def test_ctrl_c_on_a_sweep_of_two_processes_is_a_few_lines(program: Path, file: Path, delay: float) -> None:
    (file.parent / "sweep.toml").write_text(SWEEP)
    with started(program, "sweep", file.parent / "sweep.toml", "--jobs", 2) as process:
        time.sleep(delay)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode in (0, 130), err
    assert "Traceback" not in err
    assert len(err) < 500


def test_sigterm_removes_what_is_half_written(program: Path, tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom vmsim.cli import root, main\n"
        "from vmsim.base.files import replacing\n"
        "def work(*_, **__):\n"
        "    with replacing(Path('out')) as temporary:\n"
        "        temporary.write_text('half')\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "root.main = work\nmain()\n"
    )
    folder = tmp_path / "empty"
    folder.mkdir()
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (143, "terminated\n")
    assert os.listdir(folder) == []


def left(code: str, folder: Path) -> tuple[int, str]:
    """Run what stands in the place of a command, and return its exit code and what it says."""
    code = (
        "import os, signal, sys, time\nfrom pathlib import Path\nfrom vmsim.cli import root, main\n"
        f"from vmsim.base.files import replacing\n{code}root.main = work\nmain()\n"
    )
    folder.mkdir()
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stderr


@pytest.mark.parametrize(("name", "status", "word"), [("SIGTERM", 143, "terminated"), ("SIGINT", 130, "interrupted")])
def test_a_signal_that_comes_twice_is_one(name: str, status: int, word: str, tmp_path: Path) -> None:
    """timeout(1) sends SIGTERM to its child and then to the group; a second one came while files were removed."""
    code = (
        "def work(*_, **__):\n"
        "    with replacing(Path('out')) as temporary:\n"
        "        temporary.write_text('half')\n"
        "        try:\n"
        f"            os.kill(os.getpid(), signal.{name})\n"
        "        finally:\n"
        f"            os.kill(os.getpid(), signal.{name})\n"
    )
    assert left(code, tmp_path / "empty") == (status, f"{word}\n")
    assert os.listdir(tmp_path / "empty") == []


@pytest.mark.parametrize(("name", "status", "word"), [("SIGTERM", 143, "terminated"), ("SIGINT", 130, "interrupted")])
def test_a_signal_is_not_lost_where_an_object_is_removed(name: str, status: int, word: str, tmp_path: Path) -> None:
    code = (
        "class Removed:\n"
        "    def __del__(self):\n"
        f"        os.kill(os.getpid(), signal.{name})\n"
        "        time.sleep(0.01)\n"
        "def work(*_, **__):\n"
        "    Removed()\n"
        "    time.sleep(20)\n"
        "    sys.exit(5)\n"
    )
    assert left(code, tmp_path / "empty") == (status, f"{word}\n")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&-"])
def test_closed_streams_are_no_error(program: Path, closed: str, tmp_path: Path) -> None:
    command = f"{program} schema {closed}"
    done = subprocess.run(
        ["bash", "-c", command],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert done.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_output_that_cannot_be_written_is_a_sentence(program: Path) -> None:
    command = f"{program} schema > /dev/full"
    done = subprocess.run(
        ["bash", "-c", command],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (2, "vmsim: The disk is full. Nothing was left there.\n")


def test_workers_load_no_module_of_the_current_folder(tmp_path: Path) -> None:
    """`python -c`, by which processes are spawned, looks for modules in the current folder first."""
    for name in ("multiprocessing", "pickle", "signal", "struct"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'loaded')!r}, 'a').write({name!r})\n")
    code = (
        "import os\nfrom vmsim.sweeps.executors import processes\n"
        "if __name__ == '__main__':\n"
        "    with processes(1)() as pool: print(pool.submit(os.getpid).result() != os.getpid())\n"
        "    print(os.environ.get('PYTHONSAFEPATH'))\n"
    )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONSAFEPATH", None)
    (tmp_path / "script").mkdir()
    (tmp_path / "script" / "main.py").write_text(code)
    done = subprocess.run(
        [sys.executable, tmp_path / "script" / "main.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout.split() == ["True", "None"], done.stderr
    assert not (tmp_path / "loaded").exists()


@pytest.mark.skipif(not shutil.which("valgrind"), reason="valgrind is not installed")
def test_recording_does_not_read_valgrinds_settings_of_the_current_folder(program: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / ".valgrindrc").write_text("--no-such-option\n")
    with started(program, "trace", "record", "-o", "x.vmtrace", "--", "/bin/true", cwd=folder) as process:
        _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert sorted(os.listdir(folder)) == [".valgrindrc", "x.vmtrace"]


def test_a_file_that_ends_too_early_is_not_taken_for_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    from vmsim.cli import main, schema

    def ends(*_: object, **__: object) -> None:
        raise EOFError("too early")

    monkeypatch.setattr(schema.command, "callback", ends)
    with pytest.raises(EOFError, match="too early"):
        main(["schema"])
