"""Recording a real program: valgrind's lackey writes its trace into a pipe, and runs come out of it.

The text, some 15 bytes an access, is never stored.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from typing import Any, BinaryIO, cast

from vmsim.base.errors import InputError
from vmsim.base.files import replacing
from vmsim.base.progress import Progress
from vmsim.workloads.images import Start, started
from vmsim.workloads.readers import lackey
from vmsim.workloads.runs import check_granule, cut
from vmsim.workloads.stream import PAGE
from vmsim.workloads.vmtrace import VmtraceWriter

__all__ = ["Recording", "record"]

_PIPE = 1 << 20  # bytes that wait between valgrind and us; the usual 64 KiB make both wait
_FEW = 1 << 12  # at first, so that the program has done next to nothing when its mappings are asked for


@dataclass(frozen=True)
class Recording:
    """What came of a recording.

    Attributes
    ----------
    totals : dict
        As in the trace's footer.
    status : int or None
        The program's exit status, negative for the signal that ended it; None if it was stopped at the limit.
    interrupted : bool
        Whether the user stopped it. The trace holds what came until then.
    """

    totals: dict[str, Any]
    status: int | None
    interrupted: bool


def record(
    command: Sequence[str],
    path: Path,
    *,
    fetch: bool = False,
    granule: int = PAGE,
    limit: int | None = None,
    progress: Progress | None = None,
    force: bool = True,
) -> Recording:
    """Run a program under valgrind's lackey and write its trace to `path`.

    The program's own input and output stay as they are. Only the process started is recorded: what its children do is
    left out, since valgrind does not say whose an access is (FORK events stand in the trace), and so is what comes
    after it has replaced itself by another program.

    Parameters
    ----------
    command : sequence of str
        The program and its arguments.
    path : Path
        The `.vmtrace` file. It is complete or absent.
    fetch : bool
        Keep instruction fetches too.
    granule : int
        4096, or 64.
    limit : int, optional
        Stop after so many accesses.
    progress : callable, optional
        Called chunk by chunk; see `vmsim.base.progress.Progress`.
    force : bool
        Replace a file that is at `path`; if false, it is refused before the program runs.

    Raises
    ------
    InputError
        valgrind or the program is missing, the program made no access, or `path` cannot be written.
    """
    check_granule(granule)
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise InputError(
            "valgrind is not installed: `vmsim trace record` runs the program under it. Install it with your system's "
            "package manager (Debian, Ubuntu: apt install valgrind; Fedora: dnf install valgrind)."
        )
    if shutil.which(command[0]) is None:
        raise InputError(f"{command[0]}: no such program: expected a command that can be run after `--`.")
    version = subprocess.run([valgrind, "--version"], capture_output=True, text=True, check=False).stdout.strip()
    about = {"command": list(command), "tool": f"{version} lackey", "fetch": fetch}
    with replacing(path, force=force) as temporary, temporary.open("wb") as file:
        writer = VmtraceWriter(file, granule=granule, about=about)
        status, interrupted = _run(valgrind, command, writer, fetch, granule, limit, progress)
        if not writer.summary.accesses:
            raise InputError(
                f"{command[0]}: valgrind recorded no access (exit status {status}): expected a program for this "
                "machine that valgrind can run. Nothing was written."
            )
        writer.close()
    return Recording(writer.summary.totals(), status, interrupted)


def _run(
    valgrind: str,
    command: Sequence[str],
    writer: VmtraceWriter,
    fetch: bool,
    granule: int,
    limit: int | None,
    progress: Progress | None,
) -> tuple[int | None, bool]:
    """Run the program to its end, the limit or an interrupt; return its status and whether it was interrupted."""
    reading, writing = os.pipe()
    _make_wide(writing, _FEW)
    process = subprocess.Popen(
        [
            valgrind,
            "--command-line-only=yes",  # no .valgrindrc: that of the current folder may be somebody else's
            "--tool=lackey",
            "--trace-mem=yes",
            "--trace-syscalls=yes",
            "--trace-sched=yes",
            "--child-silent-after-fork=yes",
            f"--log-fd={writing}",
            "--",
            *command,
        ],
        pass_fds=[writing],
    )
    os.close(writing)
    interrupted = False

    def stop(number: int, frame: object) -> None:
        # The terminal has sent the signal to the program as well. What it still wrote is read to the end.
        nonlocal interrupted
        if interrupted:
            raise KeyboardInterrupt
        interrupted = True
        process.terminate()

    before = signal.signal(signal.SIGINT, stop)
    try:
        with os.fdopen(reading, "rb", buffering=0) as pipe:
            text = _Watched(pipe, process.pid)
            source = cast(BinaryIO, text)
            fetches: lackey.Fetch = "all" if fetch else "first"
            for chunk in lackey.parse(source, "valgrind's trace", granule=granule, fetch=fetches, complete=False):
                chunk, text.start = text.start.before(chunk, granule), Start()
                room = None if limit is None else limit - writer.summary.accesses
                total = int(chunk.count.sum())
                writer.add(chunk if room is None or total <= room else cut(chunk, room))
                if progress:
                    progress("", writer.summary.accesses, limit or 0)
                if room is not None and total >= room:
                    return None, interrupted
        return process.wait(), interrupted
    finally:
        signal.signal(signal.SIGINT, before)
        process.kill()
        process.wait()


class _Watched:
    """A pipe from valgrind; with the first that comes, what the program has mapped before it starts is asked for."""

    def __init__(self, pipe: RawIOBase, process: int) -> None:
        self.start = Start()
        self._pipe = pipe
        self._process: int | None = process

    def read(self, size: int) -> bytes:
        data = self._pipe.read(size) or b""
        if self._process is not None:
            self.start = started(self._process)
            if self.start.events:
                self._process = None
                _make_wide(self._pipe.fileno(), _PIPE)
        return data


def _make_wide(pipe: int, size: int) -> None:
    import fcntl

    if hasattr(fcntl, "F_SETPIPE_SZ"):  # Linux
        with suppress(OSError):  # above the user's limit: the usual size works too
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, size)
