"""The command line: one module per verb, imported when the verb is used."""

from __future__ import annotations

import errno
import json
import signal
import sys
import textwrap
import warnings
from importlib import import_module
from typing import Any, Final, TextIO

import click

from vmsim.base.errors import InputError, nearest
from vmsim.base.files import printable
from vmsim.cli.leaving import Terminated, deaf, in_order, was_interrupted

__all__ = ["main", "root"]

# The first sentence of each verb's help; a table, so that `vmsim --help` need not import them all. A test compares.
VERBS: Final = {
    "init": "Write a scenario and a sweep to begin with.",
    "check": "Read scenarios, sweeps and CPU files without running them.",
    "run": "Simulate a scenario.",
    "compare": "Simulate a scenario under several paging modes, side by side.",
    "sweep": "Simulate a scenario at many points of its parameters, in parallel.",
    "advise": "Answer a question about a scenario from simulation.",
    "sensitivity": "Say which parameters matter: Morris or Sobol indices.",
    "results": "List, merge, export and verify the results of sweeps.",
    "show": "Print the tables of a run or of a comparison that was kept.",
    "plot": "Draw a figure of a run, a comparison or a sweep.",
    "report": "Write one HTML page of a run, a comparison or a sweep.",
    "diff": "Say what two runs differ in: their scenarios, and what they cost.",
    "timeline": "Write what happened in a run as a timeline for Perfetto.",
    "top": "Replay the memory of a run's host and VMs as a live table.",
    "messages": "Print what monitors and the host of a run said to each other.",
    "dump": "Write the page tables of a run, as they were when each VM ended.",
    "explain": "Show every memory reference of one page walk, cold and warm.",
    "mrc": "Say what share of accesses would miss in a memory of any size.",
    "trace": "Record, convert and look at traces of real programs.",
    "arrivals": "Make a scenario of VMs that come, change their size and go.",
    "cpus": "List the CPU presets, or every figure of one with its source.",
    "policies": "List the policies of a host's memory, and where each can be asked for.",
    "schema": "Print the JSON Schema of scenario files, or of sweep files.",
    "validate": "Predict published measurements, and say how far off.",
    "calibrate": "Measure this machine, propose a CPU file, and say which paging mode explains it.",
    "warm": "Compile the kernels ahead of the first run.",
}

_WIDTH: Final = 100


class _PassedError(BaseException):
    """What click would make an Abort of: Ctrl-C, and any file that ends too early."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class _Verbs(click.Group):
    """A group whose commands are modules of this package."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            verb = next((word for word in given if word in VERBS), "COMMAND")
            raise click.UsageError(
                f"No such option before the command: {error.option_name}. Options of a command come after it: "
                f"vmsim {verb} … {error.option_name}.",
                ctx,
            ) from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = import_module(f"vmsim.cli.{cmd_name}").command
        command.name = cmd_name
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, EOFError) as error:
            raise _PassedError(error) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            raise InputError(f"{args[0]!r} is not a command. {nearest(args[0], VERBS)}")
        return super().resolve_command(ctx, args)


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": _WIDTH})
@click.version_option(package_name="vmsim", message="vmsim %(version)s")
def root() -> None:
    """Simulate what memory costs when several virtual machines share a host."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave the process with its exit code.

    0: done. 1: a published measurement or an invariant does not hold. 2: the input cannot be used. 3: the simulated
    machine ran out of memory. 130: interrupted. 143: terminated.
    """
    if arguments is not None:
        sys.exit(_status(arguments))
    with in_order():
        status = _status(None)
    sys.exit(status)


def _status(arguments: list[str] | None) -> int:
    warnings.showwarning = _warn
    as_json = _wants_json(arguments)
    try:
        try:
            status = root.main(arguments, prog_name="vmsim", standalone_mode=False)
        except _PassedError as passed:
            raise passed.error from None
        sys.stdout.flush()
    except InputError as error:
        if was_interrupted():
            return _left(error)
        return _complain(str(error), error.to_json(), as_json=as_json)
    except click.ClickException as error:
        if as_json:
            return _complain(error.format_message(), {"kind": "usage"}, as_json=True)
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt, Terminated) as error:
        return _left(error)
    except BrokenPipeError:  # `vmsim … | head`: nobody reads on, which is no error
        sys.stdout = None  # else the interpreter flushes it at exit and complains
        return 0
    except MemoryError as error:
        text = f"This machine has too little memory for the simulation{_because(error)}."
        return _complain(text, {"kind": "memory"}, as_json=as_json)
    except AssertionError as error:
        check = sys.modules.get("vmsim.engine.check.host")
        if check is None or not isinstance(error, check.BrokenInvariant):
            raise
        text = f"An invariant of the simulation is broken, which is a defect of vmsim: {error}"
        _complain(text, {"kind": "invariant"}, as_json=as_json)
        return 1
    except OSError as error:
        return _failed(error, as_json)
    except Exception as error:
        if was_interrupted():  # a library made something else of it while it was imported
            return _left(error)
        raise
    return status if isinstance(status, int) else 0


def _warn(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning as a sentence, without the line of code that it came from."""
    click.echo(f"vmsim: warning: {message}", err=True)


def _left(error: BaseException) -> int:
    """Say that a signal ends this, and what is kept."""
    number = deaf()
    what = "terminated" if number == signal.SIGTERM else "interrupted"
    told = str(error) if isinstance(error, KeyboardInterrupt) else ""
    click.echo(f"{what}: {told}" if told else what, err=True)
    return 128 + number


def _failed(error: OSError, as_json: bool) -> int:
    """Say what the operating system has refused."""
    where = printable(error.filename) if isinstance(error.filename, str) else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        text = f"The disk is full{f': {where}' if where else ''}. Nothing was left there."
    else:
        text = f"{f'{where}: ' if where else ''}{error.strerror or error}."
    status = _complain(text, {"kind": "system", "file": where or None}, as_json=as_json)
    try:
        sys.stdout.flush()
    except OSError:
        sys.stdout = None  # it is what failed, and would again when the interpreter flushes it
    return status


def _because(error: BaseException) -> str:
    return f": {error}" if str(error) else ""


def _wants_json(arguments: list[str] | None) -> bool:
    """Whether ``--json`` was given to vmsim, not to a program that it is to start."""
    given = sys.argv[1:] if arguments is None else arguments
    return "--json" in given[: given.index("--")] if "--" in given else "--json" in given


def _complain(text: str, fields: dict[str, Any] | None = None, *, as_json: bool = False) -> int:
    """Print a paragraph on stderr, wrapped where people read it, or as JSON; return the exit code of bad input."""
    if as_json:
        error = {"kind": "input", "file": None, "line": None, "key": None, "message": text, "nearest": None}
        click.echo(json.dumps({"error": error | (fields or {})}, ensure_ascii=True), err=True)
        return 2
    message = f"vmsim: {text}"
    if sys.stderr.isatty():
        message = "\n".join(
            textwrap.fill(line, _WIDTH, break_long_words=False, break_on_hyphens=False) for line in message.splitlines()
        )
    click.echo(message, err=True)
    return 2
