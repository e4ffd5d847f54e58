"""`Spec`: which points of a scenario's parameters are to be simulated; read from TOML and written to it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    PrivateAttr,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from vmsim.base.errors import InputError
from vmsim.record.tables import TABLES
from vmsim.scenario import Scenario, toml
from vmsim.scenario.document import Document
from vmsim.scenario.problems import KeyPath, Problem, problems_of, raise_problems
from vmsim.scenario.types import MAX_INT, Count, Model, Positive
from vmsim.sweeps.expressions import Expression, Value, plain

__all__ = ["Range", "Sample", "Spec"]

MAX_POINTS: Final = 10_000_000
MAX_DRAWN: Final = 1 << 24
"""Values of a sample: 128 MiB."""
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}")
SAME: Final[Mapping[str, tuple[str, ...]]] = {"seed": ("seed",), "mode": ("vm.mode",)}
"""Columns of every result that an axis may be called, with the key it then has: what the column says."""
_OURS: Final = ("point", "replicate", "seed", *TABLES["summary"][0])


def _scalar(value: object) -> object:
    if isinstance(value, str | bool | float) or (isinstance(value, int) and abs(value) <= MAX_INT):
        return value
    raise InputError("found something that is neither a number, a text, nor true or false")


def _several(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _finite(value: Value) -> Value:
    if isinstance(value, float) and not abs(value) < float("inf"):
        raise InputError(f"found {value}, expected a finite number")
    return value


_ANY: Final = {"type": ["boolean", "integer", "number", "string"]}
Scalar = Annotated[Any, BeforeValidator(lambda value: _finite(_scalar(value))), WithJsonSchema(_ANY)]
Values = Annotated[tuple[Scalar, ...], Field(max_length=MAX_POINTS)]
Keys = Annotated[
    tuple[str, ...],
    BeforeValidator(_several),
    Field(min_length=1),
    PlainSerializer(lambda keys: keys[0] if len(keys) == 1 else list(keys), return_type=Any),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}),
]


class Range(Model):
    """What one parameter of a sample is drawn from: from `low` to `high`, or one of `choices`."""

    low: Scalar | None = Field(default=None, description="The least value: a number, or a size with its unit.")
    high: Scalar | None = Field(default=None, description="The greatest value.")
    scale: Literal["linear", "log"] = Field(default="linear", description="log: every doubling is as likely.")
    step: Scalar | None = Field(
        default=None, description="Values are rounded to multiples of it; default 1, 4KiB of sizes, none of fractions."
    )
    choices: Values | None = Field(default=None, description="In the place of low and high: equally likely values.")

    def value(self, share: float) -> Value:
        """Return the value at a share, from 0 to below 1, of the range."""
        if self.choices is not None:
            chosen: Value = self.choices[min(int(share * len(self.choices)), len(self.choices) - 1)]
            return chosen
        low, high, step = plain(self.low), plain(self.high), plain(self.step)
        value = low * (high / low) ** share if self.scale == "log" else low + (high - low) * share
        if not self._whole:
            value = round(value / step) * step if step else value
            return min(max(float(f"{value:.12g}"), float(low)), float(high))
        step = step or (4096 if isinstance(self.low, str) else 1)
        return int(min(max(round(value / step) * step, -(-low // step) * step), high // step * step))

    @property
    def _whole(self) -> bool:
        return not any(isinstance(plain(each), float) for each in (self.low, self.high, self.step))

    @model_validator(mode="after")
    def _check(self) -> Range:
        raise_problems(self._problems())
        return self

    def _problems(self) -> Iterator[Problem]:
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.step is not None:
                yield Problem(("choices",), "choices stand in the place of low, high and step; leave those out")
            elif not self.choices:
                yield Problem(("choices",), "an empty array; expected one value at least")
            return
        for key in ("low", "high"):
            value = plain(getattr(self, key))
            if value is None:
                yield Problem((key,), "this key is missing; a range has low and high, or choices")
                return
            if isinstance(value, bool | str):
                yield Problem((key,), f"found {value!r}, expected a number or a size with its unit")
                return
        step = plain(self.step)
        low, high = plain(self.low), plain(self.high)
        if step is not None and (isinstance(step, bool | str) or step <= 0):
            yield Problem(("step",), f"found {self.step!r}, expected a number above zero")
        elif not low < high:
            yield Problem(("high",), f"expected low < high, found {self.low!r} and {self.high!r}")
        elif self._whole and -(-low // (step or 1)) * (step or 1) > high:
            yield Problem(("step",), f"no multiple of {self.step!r} is between {self.low!r} and {self.high!r}")
        if self.scale == "log" and low <= 0:
            yield Problem(("low",), f"found {self.low!r}, but a logarithmic range begins above zero")


class Sample(Model):
    """Points drawn from ranges, the same ones for the same seed."""

    kind: Literal["random", "latin-hypercube", "sobol"] = Field(description="How the points fill the space.")
    points: Annotated[Positive, Field(le=1 << 20)] = Field(description="How many; for sobol a power of two.")
    seed: Count = Field(default=1, description="Of the drawing, not of the scenarios.")
    ranges: dict[str, Range] = Field(min_length=1, max_length=1000, description="By name or key.")

    @model_validator(mode="after")
    def _check(self) -> Sample:
        if self.points * len(self.ranges) > MAX_DRAWN:
            text = f"{self.points:,} points of {len(self.ranges):,} ranges are more than {MAX_DRAWN:,} values"
            raise_problems([Problem(("points",), f"{text}; expected fewer points or ranges")])
        if self.kind == "sobol" and self.points & (self.points - 1):
            near = 1 << self.points.bit_length()
            text = f"found {self.points}, but a Sobol sequence is balanced at powers of two: {near // 2} or {near}"
            raise_problems([Problem(("points",), text)])
        return self


class Spec(Document):
    """The tables of a sweep, checked; `Sweep` is what has the points."""

    what: ClassVar = "sweep"

    base: Any = Field(
        description="A scenario file, relative to the sweep's folder, or the scenario itself.",
        json_schema_extra={"anyOf": [{"type": "string"}, {"type": "object"}]},
    )
    replicates: Annotated[Positive, Field(le=1_000_000)] = Field(default=1, description="Repetitions of each point.")
    seeds: Literal["independent", "common"] = Field(
        default="independent",
        description="independent: each point has seeds of its own. common: replicate n has one seed at all points.",
    )
    names: dict[str, Keys] = Field(default={}, description="Short names, each with the key or keys that it sets.")
    axes: dict[str, Values] = Field(default={}, description="Every combination of the values of these.")
    zip: tuple[dict[str, Values], ...] = Field(default=(), description="In each table, values go side by side.")
    list: tuple[dict[str, Scalar], ...] = Field(default=(), description="Points one by one.")
    sample: Sample | None = Field(default=None, description="Points drawn from ranges.")
    derive: dict[str, str] = Field(default={}, description="Values computed from those of the axes.")
    figures: dict[str, str] = Field(
        default={}, description='More columns of the results, each with its "component.figure" of the table figures.'
    )
    where: Annotated[tuple[str, ...], BeforeValidator(_several)] = Field(
        default=(), description="Conditions that a point must meet."
    )
    invalid: Literal["refuse", "skip"] = Field(
        default="refuse",
        description="What becomes of a sweep in which the scenario of a point cannot be: it is refused, or those "
        "points are skipped and counted.",
    )
    _scenario: Scenario = PrivateAttr()
    _derived: dict[str, Expression] = PrivateAttr(default={})
    _filters: tuple[Expression, ...] = PrivateAttr(default=())

    @classmethod
    def of(cls, base: Scenario | str | Path, axes: Mapping[str, Iterable[Any]] | None = None, **tables: Any) -> Self:
        """Return a sweep made in Python.

        Parameters
        ----------
        base : Scenario or path
            What is varied.
        axes : mapping of str to iterable
            Values by name or dotted key.
        **tables
            The other keys of a sweep file: ``names``, ``zip``, ``list``, ``sample``, ``derive``, ``where``,
            ``figures``, ``replicates``, ``seeds``.

        Raises
        ------
        InputError
            As of `from_toml`.
        """
        scenario = base if isinstance(base, Scenario) else Scenario.load(base)
        plainly = {name: [_python(value) for value in values] for name, values in (axes or {}).items()}
        listed = {"list": [{name: _python(value) for name, value in row.items()} for row in tables.pop("list", ())]}
        data = {"base": toml.parse(scenario.to_toml(), "scenario"), "axes": plainly, **listed, **tables}
        return cls.from_tables(data, folder=scenario.folder)

    def to_toml(self) -> str:
        """Return the sweep as a TOML text; `from_toml` in the same folder gives an equal sweep."""
        import tomli_w

        data = self.model_dump(exclude_none=True, exclude_defaults=True)
        return tomli_w.dumps({key: list(value) if isinstance(value, tuple) else value for key, value in data.items()})

    @property
    def scenario(self) -> Scenario:
        """The scenario that is varied."""
        return self._scenario

    @property
    def varied(self) -> tuple[str, ...]:
        """Names of what is varied, derived values last: the columns of the points."""
        sample = self.sample.ranges if self.sample else {}
        zipped = [name for block in self.zip for name in block]
        return (*self.axes, *zipped, *(self.list[0] if self.list else {}), *sample, *self.derive)

    def keys_of(self, name: str) -> tuple[str, ...]:
        """Return the dotted keys that a name sets; a name that is not in `names` is a key itself."""
        return self.names.get(name, (name,))

    def settings(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """Return the values of a point by dotted key."""
        return {key: value for name, value in values.items() for key in self.keys_of(name)}

    def derived(self, values: dict[str, Value]) -> dict[str, Value]:
        """Add the derived values to those of the axes, in place; return them all."""
        for name, expression in self._derived.items():
            values[name] = expression(_known(expression, values, self))
        return values

    def wanted(self, values: Mapping[str, Value]) -> bool:
        """Return whether a point meets all conditions."""
        return all(condition(_known(condition, values, self)) for condition in self._filters)

    @model_validator(mode="after")
    def _check(self) -> Self:
        raise_problems(self._load_base())
        raise_problems([*self._name_problems(), *self._block_problems()])
        raise_problems(self._parse_expressions())
        size = self.replicates * self._size()
        if size > MAX_POINTS:
            raise_problems([Problem((), f"{size:,} points, expected at most {MAX_POINTS:,}")])
        return self

    def _load_base(self) -> Iterator[Problem]:
        try:
            if isinstance(self.base, str):
                self._scenario = Scenario.load(self.folder / self.base)
            elif isinstance(self.base, Mapping):
                self._scenario = Scenario.model_validate(dict(self.base), context={"folder": self.folder})
            else:
                yield Problem(("base",), "expected the path of a scenario file, or a table")
        except ValidationError as error:
            for problem in problems_of(error, Scenario):
                yield problem._replace(path=("base", *problem.path))
        except InputError as error:
            yield Problem(("base",), str(error))

    def _blocks(self) -> Iterator[tuple[KeyPath, Iterable[str]]]:
        yield ("axes",), self.axes
        for number, block in enumerate(self.zip):
            yield ("zip", number), block
        if self.list:
            yield ("list", 0), self.list[0]
        if self.sample:
            yield ("sample", "ranges"), self.sample.ranges
        yield ("derive",), self.derive

    def _name_problems(self) -> Iterator[Problem]:
        used: dict[str, str] = {}
        for path, block in self._blocks():
            for name in block:
                keys = self.keys_of(name)
                if not _NAME.fullmatch(name):
                    yield Problem((*path, name), "expected a name of letters, digits, _ - and ., at most 100")
                elif name in _OURS and keys != SAME.get(name):
                    text = f"{name!r} is a column of every result; give it another name in [names]"
                    yield Problem((*path, name), text)
                elif name == "mode" and "auto" in _texts(block, name):
                    text = (
                        "the column 'mode' has the mode that \"auto\" stands for; give the axis another name in [names]"
                    )
                    yield Problem((*path, name), text)
                for key in keys:
                    if used.setdefault(key, name) != name or list(keys).count(key) > 1:
                        yield Problem((*path, name), f"{key} is set twice")
                if list(self.varied).count(name) > 1:
                    yield Problem((*path, name), "this is varied twice")
                if "seed" in keys and (self.replicates > 1 or self.seeds == "common"):
                    yield Problem((*path, name), "replicates have seeds of their own; leave out the one or the other")
        for name, figure in self.figures.items():
            if not _NAME.fullmatch(name):
                yield Problem(("figures", name), "expected a name of letters, digits, _ - and ., at most 100")
            elif name in _OURS or name in self.varied:
                yield Problem(("figures", name), "the results have a column of this name; give it another")
            if not all(figure.partition(".")):
                text = f'found {figure!r}, expected a component and its figure: "dirty_log.pages"'
                yield Problem(("figures", name), text)
        for name in self.names:
            if name not in self.varied:
                yield Problem(("names", name), "nothing here has values for this name")

    def _block_problems(self) -> Iterator[Problem]:
        for path, block in [(("axes",), self.axes), *((("zip", number), each) for number, each in enumerate(self.zip))]:
            for name, values in block.items():
                if not values:
                    yield Problem((*path, name), "an empty array; expected one value at least")
        for number, block in enumerate(self.zip):
            if not block:
                yield Problem(("zip", number), "an empty table; expected names or keys with their values")
            lengths = {name: len(values) for name, values in block.items()}
            if len({*lengths.values()}) > 1:
                text = ", ".join(f"{name} has {length}" for name, length in lengths.items())
                yield Problem(("zip", number), f"values that go side by side must be as many: {text}")
        for number, row in enumerate(self.list):
            if {*row} != {*self.list[0]}:
                text = f"expected the keys of the first table, {', '.join(self.list[0])}; found {', '.join(row)}"
                yield Problem(("list", number), text)

    def _parse_expressions(self) -> Iterator[Problem]:
        known = [name for name in self.varied if name not in self.derive]
        known += [key for name in known for key in self.keys_of(name) if key not in known]
        for name, text in self.derive.items():
            try:
                self._derived = {**self._derived, name: Expression(text)}
                self._derived[name].check_names(known)
            except InputError as error:
                yield Problem(("derive", name), str(error))
            known += [name, *(key for key in self.keys_of(name) if key != name)]
        for number, text in enumerate(self.where):
            try:
                self._filters = (*self._filters, Expression(text))
                self._filters[-1].check_names(known)
            except InputError as error:
                yield Problem(("where", number), str(error))

    def _size(self) -> int:
        size = 1
        for values in self.axes.values():
            size *= len(values)
        for block in self.zip:
            size *= len(next(iter(block.values()))) if block else 1
        return size * (len(self.list) or 1) * (self.sample.points if self.sample else 1)


def _known(expression: Expression, values: Mapping[str, Value], spec: Spec) -> Mapping[str, Value]:
    """Return the values that an expression may ask for: by name and, if it has a key in it, by key."""
    if all(name in values for name in expression.names):
        return values
    return {**values, **spec.settings(values)}


def _texts(block: Any, name: str) -> tuple[Any, ...]:
    """Return the values that a block of a sweep gives a name, as far as they stand there."""
    values = block[name] if isinstance(block, Mapping) else ()
    if isinstance(values, Range):
        return values.choices or ()
    return values if isinstance(values, tuple) else (values,)


def _python(value: Any) -> Any:
    """Return a number of numpy as Python's own."""
    return value.item() if hasattr(value, "item") else value
