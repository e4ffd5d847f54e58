"""Is the command line quick to start, and plain when it cannot do what was asked?"""

import errno
import json
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


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_fits_80_columns_explains_each_option_and_cuts_nothing_off(verb: str) -> None:
    command = root.get_command(click.Context(root), verb) if verb else root
    assert command is not None
    for each in {command, *_leaves(command)}:
        context = click.Context(each, info_name="vmsim results export", terminal_width=80, max_content_width=80)
        lines = each.get_help(context).splitlines()
        assert [line for line in lines if len(line) > 80] == []
        assert [line for line in lines if line.endswith("...") and "Usage" not in line] == []
        options = [option for option in each.params if isinstance(option, click.Option)]
        assert [option.name for option in options if not option.help] == []


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


@pytest.mark.parametrize("option", ["--json", "--set"])
def test_an_option_before_the_command_is_told_where_it_goes(vmsim, option: str) -> None:
    said = vmsim(option, "run", "x.toml")
    assert said.status == 2
    assert f"vmsim run … {option}" in (json.loads(said.err)["error"]["message"] if option == "--json" else said.err)


@pytest.mark.parametrize("word", ["list", "completion", "RUNN", "X"])
def test_a_hint_is_given_only_where_a_command_is_near(vmsim, word: str) -> None:
    said = vmsim(word)
    assert said.status == 2
    assert ("Did you mean 'run'?" in said.err) == (word == "RUNN")
    assert said.err.count("validate") == (word != "RUNN")  # all are listed once


@pytest.mark.parametrize(
    ("text", "options", "fields"),
    [
        ("cores = 0", [], {"kind": "input", "line": 5, "key": "host.cores", "message": "found 0, expected at least 1"}),
        ("corse = 1", [], {"line": 5, "key": "host.corse", "nearest": "cores"}),
        ("cores = = 1", [], {"line": 5, "key": None, "message": "not valid TOML: Invalid value (column 9)"}),
        ("cores = 1", ["--set", "vm.mode=EPT"], {"file": None, "line": None, "key": "vm.0.mode", "nearest": "ept"}),
        ("cores = 1", ["--set", "vm.d.mode=ept"], {"file": None, "key": "vm.d.mode", "nearest": "db"}),
        ("cores = 1", ["--jsno"], {"kind": "usage", "file": None}),
    ],
)
def test_with_json_errors_are_json(vmsim, file: Path, text: str, options: list[str], fields: dict[str, object]) -> None:
    file.write_text(file.read_text().replace("cores = 1", text))
    said = vmsim("run", file, "--json", *options)
    assert (said.status, said.out) == (2, "")
    error = json.loads(said.err)["error"]
    assert {"kind", "file", "line", "key", "message", "nearest"} <= {*error}
    assert error | ({"file": str(file)} | fields if error["kind"] == "input" else fields) == error


def test_an_error_of_a_setting_says_which_and_the_other_lines_stay(vmsim, file: Path) -> None:
    said = vmsim("run", file, "--set", "host.cores=0", "--set", "vm.memory=12MiB", "--set", "vm.0.count=-1")
    assert "--set host.cores=0: host.cores: found 0" in said.err
    assert "--set vm.0.count=-1: vm.0.count (db): found -1" in said.err
    file.write_text(file.read_text().replace("cores = 1", "cores = 0"))
    assert f"{file}:5: host.cores: found 0" in vmsim("run", file, "--set", "vm.memory=12MiB").err


def test_settings_may_mend_a_file(vmsim, file: Path) -> None:
    """As with `dirty_log.method`, refused on one CPU and changed to what it has: what counts is what is to be run."""
    text = file.read_text().replace('mode = "ept"', 'mode = "ept"\ndirty_log.method = "pml"')
    file.write_text(text.replace("20000", "200"))
    assert "pml needs" in vmsim("run", file).err
    assert vmsim("run", file, "--set", "vm.dirty_log.method=ad-scan").status == 0


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
    from vmsim.engine.check.host import BrokenInvariant

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
