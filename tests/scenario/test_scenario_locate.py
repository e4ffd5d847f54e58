"""Does the locator find every key of any TOML text on its line?"""

import tomllib
from collections.abc import Iterator
from typing import Any

import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from vmsim.scenario.locate import locate


def paths(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of every key and array element."""
    if path:
        yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from paths(child, (*path, key))


texts = st.text(max_size=8) | st.sampled_from(['"', "'", "#", "]", "}", "=", "a\nb", '"""', "\\", "[x]", "a.b", ""])
leaves = st.integers() | st.booleans() | st.floats() | texts | st.dates() | st.datetimes()
tables = st.dictionaries(
    texts,
    st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
    ),
    max_size=4,
)


@given(tables, st.booleans())
def test_every_key_of_a_written_text_is_found(data: dict[str, Any], multiline: bool) -> None:
    text = tomli_w.dumps(data, multiline_strings=multiline)
    found = locate(text)
    assert set(found) == set(paths(tomllib.loads(text)))
    assert all(1 <= line <= text.count("\n") + 1 for line in found.values())


def test_every_form_of_a_key_is_found_on_its_line() -> None:
    text = (
        "a = 1  # a comment = 3\n"
        'b.c."d e" = "x # = y"\n'
        "[t]\n"
        'k = """\n'
        'l = 3 "" \\""" """\n'
        "m = '''\n"
        "n = 4'''\n"
        "arr = [\n"
        "  1, # one\n"
        "  { x = 2, y.z = [3] },\n"
        "]\n"
        "[[v]]\n"
        "n = 1\n"
        "[v.w]\n"
        "o = 1\n"
        "[[v.u]]\n"
        "p = 1\n"
        "[[v]]\r\n"
        "n = { q = 2 }\r\n"
        "[[v.u]]\n"
        "p = 1\n"
    )
    expected = {
        ("a",): 1,
        ("b", "c", "d e"): 2,
        ("t",): 3,
        ("t", "k"): 4,
        ("t", "m"): 6,
        ("t", "arr"): 8,
        ("t", "arr", 0): 9,
        ("t", "arr", 1): 10,
        ("t", "arr", 1, "y", "z"): 10,
        ("v", 0): 12,
        ("v", 0, "n"): 13,
        ("v", 0, "w"): 14,
        ("v", 0, "w", "o"): 15,
        ("v", 0, "u", 0, "p"): 17,
        ("v", 1): 18,
        ("v", 1, "n", "q"): 19,
        ("v", 1, "u", 0, "p"): 21,
    }
    found = locate(text)
    assert {path: found[path] for path in expected} == expected
    assert set(found) == set(paths(tomllib.loads(text)))
