import runpy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


@pytest.fixture(scope="session")
def figure_of() -> Callable[[str], SimpleNamespace]:
    """Give what the figure.py of an experiment defines."""
    return lambda name: SimpleNamespace(**runpy.run_path(str(EXPERIMENTS / name / "figure.py")))
