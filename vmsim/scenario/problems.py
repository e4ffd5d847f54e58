"""What is wrong with a scenario or CPU file, in words for the person who wrote it."""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from vmsim.base.errors import InputError, closest, nearest

__all__ = ["KeyPath", "Problem", "input_error", "problems_of", "raise_problems", "valid_keys"]

KeyPath = tuple[str | int, ...]
Places = Mapping[KeyPath, int | str]
"""Where each key stands: the line of the file, or the ``--set`` option that gave it."""

AT_MOST: Final = 5
_LONGEST_KEY: Final = 200
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
    """One thing that is wrong.

    Attributes
    ----------
    path : tuple of str or int
        The key it is about.
    text : str
        A sentence.
    word : str
        What was found in place of a valid choice.
    choices : tuple of str
        The valid choices, among which the one nearest to `word` is named when the problem is printed.
    listed : bool
        `text` has the choices in it already.
    """

    path: KeyPath
    text: str
    word: str = ""
    choices: tuple[str, ...] = ()
    listed: bool = False

    @property
    def nearest(self) -> str | None:
        """The valid choice nearest to what was found."""
        return closest(self.word, self.choices) if self.choices else None

    @property
    def sentence(self) -> str:
        """The text with the nearest valid choice, or with all of them."""
        if not self.choices:
            return self.text
        if self.listed and self.nearest is None:
            return self.text
        return f"{self.text.rstrip('.')}. {nearest(self.word, self.choices)}"


def raise_problems(problems: Iterable[Problem]) -> None:
    """Refuse a table from inside one of its validators, if there is a problem; paths are relative to it."""
    found = list(problems)
    if found:
        raise PydanticCustomError("problems", "{text}", {"text": found[0].text, "problems": found})


def input_error(
    source: str, problems: Iterable[Problem], places: Places, names: Mapping[KeyPath, str] | None = None
) -> InputError:
    """Return one InputError that lists the first problems in the order of their lines.

    Parameters
    ----------
    source : str
        File the problems are in, or another name for where the text came from.
    problems : iterable of Problem
        At least one. Five are listed; the rest are counted.
    places : mapping of key path to int or str
        Line of each key, counted from 1, or the option that set it. A key that is not in the text (it is missing,
        say) is placed at the nearest table around it.
    names : mapping of key path to str, optional
        What tables in arrays are called: ``("vm", 0)`` is ``"db"``.
    """
    found = sorted(dict.fromkeys(problems), key=lambda problem: _order(_place(problem.path, places)))
    told = [_told(problem, source, places, names or {}) for problem in found[:AT_MOST]]
    texts = [text for text, _ in told]
    first = told[0][1]
    if len(found) == 1:
        return InputError(texts[0], **first)
    more = f"\n  … and {len(found) - AT_MOST} more" if len(found) > AT_MOST else ""
    text = f"{source}: {len(found)} problems:\n  " + "\n  ".join(texts) + more
    return InputError(text, **first, problems=[fields for _, fields in told])


def problems_of(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """Return the problems that pydantic found while validating `model`, in our words."""
    problems: list[Problem] = []
    keys: dict[KeyPath, tuple[str, ...]] = {}  # of each table: there may be very many unknown keys in one
    for details in error.errors(include_url=False):
        location = details["loc"]
        path = _without_tags(location)
        if details["type"] == "problems":
            problems += [each._replace(path=path + each.path) for each in details["ctx"]["problems"]]
        elif details["type"] == "extra_forbidden":
            table = location[:-1]
            if table not in keys:
                keys[table] = tuple(valid_keys(model, table))
            problems.append(Problem(path, "unknown key", str(path[-1]), keys[table]))
        else:
            problems.append(_worded(details, location, path, model))
    return problems


def _worded(details: ErrorDetails, location: KeyPath, path: KeyPath, model: type[BaseModel]) -> Problem:
    kind, context, found = details["type"], details.get("ctx", {}), _shown(details["input"])
    match kind:
        case "value_error":
            return Problem(path, str(context["error"]))
        case "missing":
            return Problem(path, "this key is missing; it has no default")
        case "literal_error":
            choices = context["expected"].replace(" or ", ", ").replace("'", "").split(", ")
            text = f"found {found}, expected {context['expected']}"
            return Problem(path, text, str(details["input"]), tuple(choices), listed=True)
        case "union_tag_invalid":
            tags = tuple(context["expected_tags"].replace("'", "").split(", "))
            path = (*path, "kind" if path[-1] == "workload" else "style")
            return Problem(path, f"found {_shown(context['tag'])}", str(context["tag"]), tags)
        case "union_tag_not_found":
            path = (*path, "kind" if path[-1] == "workload" else "style")
            return Problem(path, f"this key is missing; {_tags(model, location)}")
        case "greater_than_equal" | "greater_than" | "less_than_equal" | "less_than":
            words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
            key, limit = next((k, context[k]) for k in words if k in context)
            shown = f"{limit:,}" if isinstance(limit, int) and limit >= 10**6 else str(limit)
            return Problem(path, f"found {found}, expected {words[key]} {shown}")
    if kind in _EXPECTED:
        return Problem(path, f"found {found}, expected {_EXPECTED[kind]}")
    return Problem(path, f"found {found}. {details['msg']}")


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


def _place(path: KeyPath, places: Places) -> int | str | None:
    return next((places[path[:n]] for n in range(len(path), 0, -1) if path[:n] in places), None)


def _order(place: int | str | None) -> tuple[int, int]:
    return (1, 0) if isinstance(place, str) else (0, place or 0)


def _told(problem: Problem, source: str, places: Places, names: Mapping[KeyPath, str]) -> tuple[str, dict[str, Any]]:
    """Return a problem as text and as the fields of an InputError."""
    place = _place(problem.path, places)
    file = place if isinstance(place, str) else source
    line = place if isinstance(place, int) else None
    key = _shortened(".".join(str(part) for part in problem.path))
    name = next((names[problem.path[:n]] for n in range(len(problem.path), 0, -1) if problem.path[:n] in names), None)
    labelled = f"{key} ({name})" if name is not None else key
    sentence = problem.sentence
    where = f"{file}:{line}" if line is not None else file
    text = f"{where}: {labelled}: {sentence}" if key else f"{where}: {sentence}"
    option = isinstance(place, str)
    message = f"{file}: {sentence}" if option else sentence
    fields = {
        "file": None if option else file,
        "line": line,
        "key": key or None,
        "message": message,
        "nearest": problem.nearest,
    }
    return text, fields


def _shortened(text: str) -> str:
    text = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text[: 2 * _LONGEST_KEY])
    return text if len(text) <= _LONGEST_KEY else f"{text[: _LONGEST_KEY - 1]}…"


def _shown(value: object) -> str:
    if isinstance(value, dict | list | tuple):
        return "a table" if isinstance(value, dict) else "an array"
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 256:
        return "a number of more than 77 digits"
    if isinstance(value, str):
        value = value[:80]
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
