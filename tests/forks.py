"""Code in a process of its own that is forked from one in which numba and pydantic are imported, and nothing of vmsim.

To import them is nearly all of the time that a new interpreter takes to come to vmsim. A test starts an interpreter
itself where how it starts is what it asks about: the environment that numba reads, hash seeds, what is imported.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]


def forked(code: str, cwd: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run code as ``python -c`` does, with this environment alone; return its status and what it wrote."""
    with tempfile.TemporaryDirectory() as folder:
        files = [os.path.join(folder, name) for name in ("out", "err")]
        asked = {"code": code, "cwd": str(cwd), "environment": dict(environment), "files": files}
        server = _server()
        assert server.stdin
        assert server.stdout
        server.stdin.write(json.dumps(asked) + "\n")
        server.stdin.flush()
        status = int(server.stdout.readline())
        return subprocess.CompletedProcess(code, status, *(Path(file).read_text() for file in files))


@cache
def _server() -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.forks"]
    server = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(server.communicate)
    return server


def main() -> None:
    """Fork for each line of the standard input, and write the status that the child ends with."""
    import numba
    import pydantic  # noqa: F401

    numba.njit(lambda: 0)()  # numba makes its tables of types when it compiles for the first time
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if not child:
            _become(asked)
            exec(compile(asked["code"], "<string>", "exec"), {"__name__": "__main__"})
            return
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _become(asked: dict[str, object]) -> None:
    """Take the place, the environment, the path and the streams that a new interpreter would have."""
    os.chdir(str(asked["cwd"]))
    environment, files = asked["environment"], asked["files"]
    assert isinstance(environment, dict)
    assert isinstance(files, list)
    os.environ.clear()
    os.environ.update(environment)
    own = {"", str(ROOT)}
    path = [each for each in environment.get("PYTHONPATH", "").split(os.pathsep) if each]
    sys.path[:] = [*path, *(each for each in sys.path if each not in own)]
    sys.argv[:] = ["-c"]
    for number, file in enumerate([os.devnull, *files]):
        opened = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
        os.dup2(opened, number)
        os.close(opened)


if __name__ == "__main__":
    main()
