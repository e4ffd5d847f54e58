"""Are traces from elsewhere fetched once, checked, and refused without a hash?"""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from vmsim.base.errors import InputError
from vmsim.scenario import Scenario
from vmsim.workloads.fetching import cache, fetched, is_url
from vmsim.workloads.trace import bundled, find

TEXT = b"address,kind\n" + b"".join(b"%d,w\n" % (4096 * page) for page in range(1, 9))
DIGEST = hashlib.sha256(TEXT).hexdigest()


OVER = threading.Event()


class Server(BaseHTTPRequestHandler):
    asked: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path == "/none.csv":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(TEXT) * (2 if self.path in ("/cut.csv", "/slow.csv") else 1)))
        self.end_headers()
        self.wfile.write(TEXT)
        self.wfile.flush()
        if self.path == "/slow.csv":
            OVER.wait(20)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    OVER.set()
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Server.asked.clear()
    return tmp_path / "cache"


def test_a_trace_is_fetched_once_and_its_scenario_is_as_of_the_file(address: str, tmp_path: Path) -> None:
    url = f"{address}/tiny.csv#sha256={DIGEST}"
    assert find(url, tmp_path).read_bytes() == TEXT
    assert fetched(url.replace(DIGEST, DIGEST.upper())) == cache() / DIGEST / "tiny.csv"
    assert Server.asked == ["/tiny.csv"]
    from vmsim.api import run

    (tmp_path / "tiny.csv").write_bytes(TEXT)
    tables = {"vm": [{"name": "a", "memory": "1MiB", "mode": "ept", "workload": {"kind": "trace", "path": url}}]}
    there = Scenario.from_tables(tables, folder=tmp_path)
    here = there.replace(**{"vm.workload.path": "tiny.csv"})
    result = run(there)
    assert result.inputs == {url: DIGEST}
    assert result.summary.equals(run(here).summary)
    assert Server.asked == ["/tiny.csv"]


def test_a_file_is_fetched_too_also_by_a_path_that_has_lost_a_slash(tmp_path: Path) -> None:
    (tmp_path / "my trace.csv").write_bytes(TEXT)
    url = (tmp_path / "my trace.csv").as_uri() + f"#sha256={DIGEST}"
    assert fetched(str(Path(url))).name == "my trace.csv"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/tiny.csv", "needs its SHA-256"),
        ("/tiny.csv#sha256=12", "64 hexadecimal digits"),
        (f"/tiny.csv#md5={DIGEST}", "needs its SHA-256"),
        (f"/none.csv#sha256={DIGEST}", "the server says 404"),
        (f"/tiny.csv#sha256={'0' * 64}", f"its SHA-256 is {DIGEST}, expected 000"),
        (f"/cut.csv#sha256={DIGEST}", "ended after"),
        (f"/#sha256={DIGEST}", "ends in the name of a file"),
    ],
)
def test_what_cannot_be_fetched_is_refused_and_nothing_is_kept(path: str, said: str, address: str) -> None:
    with pytest.raises(InputError, match=said):
        fetched(address + path)
    assert not [each for each in cache().rglob("*") if each.is_file()]


def test_nobody_who_answers_is_an_error_too() -> None:
    with pytest.raises(InputError, match="cannot be fetched"):
        fetched(f"http://127.0.0.1:1/a.csv#sha256={DIGEST}")
    with pytest.raises(InputError, match="cannot be fetched"):
        fetched(f"file:///no/such/file.csv#sha256={DIGEST}")


def test_only_urls_are_urls() -> None:
    assert all(map(is_url, ("https://a/b", "HTTP://a/b", "file:/a")))
    assert not any(is_url(each) for each in ("sqlite", "a/b.csv", "./http", "httpd.vmtrace", *bundled()))


def test_ctrl_c_leaves_nothing_half(address: str) -> None:
    url = f"{address}/slow.csv#sha256={'1' * 64}"
    command = [sys.executable, "-c", "from vmsim.cli import main; main()", "trace", "info", url]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:  # its cache is that of this test
        while not Server.asked and process.poll() is None:
            threading.Event().wait(0.05)
        threading.Event().wait(0.3)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    assert "interrupted" in said
    assert not [each for each in cache().rglob("*") if each.is_file()]
