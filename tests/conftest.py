"""Shared by all tests: numba's cache, how hard hypothesis tries, and Ctrl-C as it is on a terminal."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parent.parent
# A job of a shell without job control (`make test &`, some build servers) ignores Ctrl-C, and so do its children:
# the programs that tests interrupt must not inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Kept from run to run; its key covers every jitted source, so it cannot be stale. Subprocesses inherit it.
os.environ.setdefault("NUMBA_CACHE_DIR", str(ROOT / ".pytest_cache" / "numba"))

# No deadline: the first example compiles. `derandomize`: one commit, one result.
_common = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}
settings.register_profile("default", max_examples=60, derandomize=True, **_common)
settings.register_profile("thorough", max_examples=400, **_common)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_collection_finish() -> None:
    """Have the garbage collector leave alone what was imported, which stays, and come seldom."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(autouse=True)
def signals_as_they_were() -> Iterator[None]:
    """Undo what a command that runs in the process of a test makes of signals: at its end, it ignores them."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
