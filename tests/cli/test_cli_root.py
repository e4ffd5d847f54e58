"""Is the command line quick to start, and plain when it cannot do what was asked?"""

import errno
import subprocess
import sys
from pathlib import Path

import click
import pytest

import vmsim as package
from vmsim.cli import VERBS, root

HEAVY = ("numba", "pandas", "pyarrow", "matplotlib", "pydantic", "rich", "simpy", "numpy")


HELP = "from vmsim.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass"


@pytest.mark.parametrize("code", ["import vmsim", HELP])
def test_nothing_heavy_is_imported_before_it_is_needed(code: str) -> None:
    code += f"\nimport sys\nprint('loaded:', [name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded: []"


def test_a_run_without_output_folder_needs_neither_pandas_nor_pyarrow(file: Path) -> None:
    code = f"from vmsim.cli import main\ntry: main(['run', {str(file)!r}, '--json'])\nexcept SystemExit: pass"
    code += f"\nimport sys\nprint('loaded:', [name for name in {HEAVY[1:4]} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded: []"


@pytest.mark.parametrize("verb", VERBS)
def test_the_list_of_commands_says_what_each_says_of_itself(verb: str) -> None:
    command = root.get_command(click.Context(root), verb)
    assert command is not None
    assert command.help is not None
    first = command.help.replace("\n", " ").partition(". ")[0].rstrip(".")
    assert VERBS[verb].rstrip(".").startswith(first.partition(",")[0])
    assert any("--json" in option.opts for each in _leaves(command) for option in each.params), verb


def _leaves(command: click.Command) -> list[click.Command]:
    return list(command.commands.values()) if isinstance(command, click.Group) else [command]


def test_every_verb_is_listed(vmsim) -> None:
    said = vmsim("--help")
    assert said.status == 0
    assert all(f"\n  {verb} " in said.out for verb in VERBS)


def test_the_public_names_are_there() -> None:
    assert all(getattr(package, name) is not None for name in package.__all__)
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match="Resullt"):
        package.Resullt  # noqa: B018
    assert package.__version__ in package.__version__


def test_a_mistyped_command_gets_the_nearest(vmsim) -> None:
    said = vmsim("comapre", "x.toml")
    assert said == (2, "", "vmsim: 'comapre' is not a command. Did you mean 'compare'?\n")


def test_a_wrong_option_is_exit_code_2_without_a_traceback(vmsim) -> None:
    said = vmsim("run", "x.toml", "--jsn")
    assert said.status == 2
    assert "--json" in said.err


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError("cannot reserve 9 bytes"), 2, "too little memory for the simulation: cannot reserve 9 bytes"),
        (OSError(errno.ENOSPC, "No space left on device", "/tmp/x"), 2, "The disk is full: /tmp/x"),
        (BrokenPipeError(), 0, ""),
    ],
)
def test_what_happens_to_the_process_is_said_in_a_line(
    error: BaseException, status: int, told: str, vmsim, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(root, "main", fail)
    said = vmsim("run", "x.toml")
    assert said.status == status
    assert told in said.err
    assert "Traceback" not in said.err


def test_a_broken_invariant_is_told_as_a_defect(vmsim, monkeypatch: pytest.MonkeyPatch) -> None:
    from vmsim.check import BrokenInvariant

    def fail(*_: object, **__: object) -> None:
        raise BrokenInvariant("frame 7 is lost at cycle 9")

    monkeypatch.setattr(root, "main", fail)
    said = vmsim("run", "x.toml", "--check")
    assert said.status == 1
    assert "frame 7 is lost at cycle 9" in said.err


def test_a_reader_that_stops_reading_is_no_error(tmp_path) -> None:
    command = [sys.executable, "-c", "from vmsim.cli import main; main()", "schema"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
