"""What is wrong with a scenario or CPU file, in words for the person who wrote it."""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from vmsim.errors import InputError, nearest

__all__ = ["KeyPath", "Problem", "input_error", "problems_of", "raise_problems", "valid_keys"]

KeyPath = tuple[str | int, ...]
AT_MOST: Final = 5
_UNIONS: Final = frozenset({"workload", "pwc"})
_EXPECTED: Final = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text in quotes",
    "string_too_short": "text that is not empty",
    "string_pattern_mismatch": "1 to 64 letters, digits, - or _",
    "tuple_type": "an array; tables in an array are written [[…]]",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "dict_type": "a table",
}


class Problem(NamedTuple):
    """One thing that is wrong: the key it is about, and a sentence."""

    path: KeyPath
    text: str


def raise_problems(problems: Iterable[Problem]) -> None:
    """Refuse a table from inside one of its validators, if there is a problem; paths are relative to it."""
    found = list(problems)
    if found:
        raise PydanticCustomError("problems", "{text}", {"text": found[0].text, "problems": found})


def input_error(source: str, problems: Iterable[Problem], lines: Mapping[KeyPath, int]) -> InputError:
    """Return one InputError that lists the first problems in the order of their lines.

    Parameters
    ----------
    source : str
        File the problems are in, or another name for where the text came from.
    problems : iterable of Problem
        At least one. Five are listed; the rest are counted.
    lines : mapping of key path to int
        Line of each key, counted from 1. A key that is not in the text (it is missing, say) is placed at the
        nearest table around it.
    """
    found = sorted(dict.fromkeys(problems), key=lambda problem: _line(problem.path, lines) or 0)
    texts = [_sentence(problem, _line(problem.path, lines)) for problem in found]
    if len(texts) == 1:
        return InputError(f"{source}{',' if texts[0].startswith('line') else ':'} {texts[0]}")
    more = f"\n  … and {len(texts) - AT_MOST} more" if len(texts) > AT_MOST else ""
    return InputError(f"{source}: {len(texts)} problems:\n  " + "\n  ".join(texts[:AT_MOST]) + more)


def problems_of(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """Return the problems that pydantic found while validating `model`, in our words."""
    problems: list[Problem] = []
    for details in error.errors(include_url=False):
        location = details["loc"]
        path = _without_tags(location)
        if details["type"] == "problems":
            problems += [Problem(path + inner, text) for inner, text in details["ctx"]["problems"]]
        else:
            problems.append(Problem(*_worded(details, location, path, model)))
    return problems


def _worded(details: ErrorDetails, location: KeyPath, path: KeyPath, model: type[BaseModel]) -> tuple[KeyPath, str]:
    kind, context, found = details["type"], details.get("ctx", {}), _shown(details["input"])
    if kind == "value_error":
        text = str(context["error"])
    elif kind == "extra_forbidden":
        text = f"unknown key. {nearest(str(path[-1]), valid_keys(model, location[:-1]))}"
    elif kind == "missing":
        text = "this key is missing; it has no default"
    elif kind == "literal_error":
        choices = context["expected"].replace(" or ", ", ").replace("'", "").split(", ")
        text = f"found {found}, expected {context['expected']}. {nearest(str(details['input']), choices)}"
    elif kind == "union_tag_invalid":
        tags = context["expected_tags"].replace("'", "").split(", ")
        path, text = (*path, "kind" if path[-1] == "workload" else "style"), f"found {context['tag']!r}. "
        text += nearest(str(context["tag"]), tags)
    elif kind == "union_tag_not_found":
        key = "kind" if path[-1] == "workload" else "style"
        path, text = (*path, key), f"this key is missing; {_tags(model, location)}"
    elif kind in ("greater_than_equal", "greater_than", "less_than_equal", "less_than"):
        words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
        key, limit = next((k, context[k]) for k in words if k in context)
        text = f"found {found}, expected {words[key]} {limit}"
    elif kind in _EXPECTED:
        text = f"found {found}, expected {_EXPECTED[kind]}"
    else:
        text = f"found {found}. {details['msg']}"
    return path, text


def _tags(model: type[BaseModel], location: KeyPath) -> str:
    members = _step_all(model, location)
    tags = [value for member in members for value in _discriminators(member)]
    return f"expected one of {', '.join(tags)}"


def valid_keys(model: type[BaseModel], location: KeyPath) -> list[str]:
    """Return the keys that the table at `location` (pydantic's, with union tags) knows."""
    keys: list[str] = []
    for table in _step_all(model, location):
        keys += [field.alias or name for name, field in table.model_fields.items()]
    return keys


def _step_all(model: type[BaseModel], location: KeyPath) -> list[type[BaseModel]]:
    """Return the table types that may stand at `location`."""
    tables = [model]
    for part in location:
        tagged = [table for table in tables if part in _discriminators(table)]
        if tagged:
            tables = tagged
        elif isinstance(part, str):
            fields = [f for t in tables for n, f in t.model_fields.items() if part in (n, f.alias)]
            tables = [table for field in fields for table in _tables(field.annotation)]
    return tables


def _tables(annotation: Any) -> list[type[BaseModel]]:
    """Return the table types inside a type annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (tuple, Union, types.UnionType) or hasattr(annotation, "__metadata__"):
        return [table for inner in get_args(annotation) for table in _tables(inner)]
    return []


def _discriminators(table: type[BaseModel]) -> tuple[str, ...]:
    field = table.model_fields.get("kind") or table.model_fields.get("style")
    return get_args(field.annotation) if field is not None else ()


def _without_tags(location: KeyPath) -> KeyPath:
    """Drop the union tags that pydantic puts into a location after a union's key: the text has none."""
    before = (None, *location)
    return tuple(part for key, part in zip(before, location, strict=False) if key not in _UNIONS)


def _line(path: KeyPath, lines: Mapping[KeyPath, int]) -> int | None:
    return next((lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines), None)


def _sentence(problem: Problem, line: int | None) -> str:
    where = f"line {line}: " if line is not None else ""
    key = ".".join(str(part) for part in problem.path)
    return f"{where}{key}: {problem.text}" if key else f"{where}{problem.text}"


def _shown(value: object) -> str:
    if isinstance(value, dict | list | tuple):
        return "a table" if isinstance(value, dict) else "an array"
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
