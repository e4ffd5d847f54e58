"""Is a function that is overloaded by a NamedTuple the same one in compiled code and in Python?"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

SOURCE = '''
from typing import NamedTuple
import numpy as np
from vmsim.jit import kernel, leaf, overloaded, routine

class Square(NamedTuple):
    side: np.ndarray

class Circle(NamedTuple):
    radius: np.ndarray

class Point(NamedTuple):
    place: np.ndarray

@overloaded
def area(shape, scale):
    """Of what has none."""
    return np.int64(0)

@area.register(Square)
@routine
def _of_square(shape, scale):
    return shape.side[0] ** 2 * scale

@area.register(Circle)
@leaf
def _of_circle(shape, scale):
    return 3 * shape.radius[0] ** 2 * scale

@kernel
def twice(shape):
    return 2 * area(shape, np.int64(10))
'''


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    path: Path = tmp_path_factory.mktemp("shapes") / "shapes_of_a_test.py"
    path.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("name", "area"), [("Square", 49), ("Circle", 147), ("Point", 0)])
def test_the_implementation_is_that_of_the_first_arguments_type(shapes: Any, name: str, area: int) -> None:
    shape = getattr(shapes, name)(np.array([7]))
    assert shapes.area(shape, 10) == 10 * area
    assert shapes.twice(shape) == 20 * area


def test_an_entry_that_looks_at_no_types_gives_the_same(shapes: Any) -> None:
    from vmsim.jit import resolved

    twice = resolved(shapes.twice, shapes.Square(np.array([0])))
    assert [twice(shapes.Square(np.array([side]))) for side in (1, 2, 7)] == [20, 80, 980]
