"""Which parameters matter: Morris' elementary effects and Sobol's indices over the points of a sweep.

Sampling and estimators are SALib's, on the unit cube: each parameter goes through its range from 0 to 1, on a
logarithmic scale if it says so, and its values are rounded as those of a sweep's sample. Points that round to the
same scenario are run once. All points have the base scenario's seed, so that nothing but the parameters varies.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from vmsim.base.errors import InputError, nearest
from vmsim.record.tables import TABLES
from vmsim.scenario.document import Document
from vmsim.scenario.problems import KeyPath, Problem, problems_of, raise_problems
from vmsim.scenario.types import Count, Positive
from vmsim.sweeps.expressions import Value
from vmsim.sweeps.spec import Keys, Range
from vmsim.sweeps.sweep import Sweep

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["INDICES", "Sensitivity"]

Floats = NDArray[np.float64]

INDICES: Final = {
    "morris": ("mu_star", "mu_star_conf", "mu", "sigma"),
    "sobol": ("ST", "ST_conf", "S1", "S1_conf"),
}
"""The columns of each method, as SALib names them; the first says how much a parameter matters."""

_LEVELS: Final = 4
_RESAMPLES: Final = 1000
_MOST: Final = 1 << 20
_RESPONSES: Final = tuple(name for name, kind in TABLES["summary"][0].items() if kind in ("int64", "float64"))


def _several(value: object) -> object:
    return (value,) if isinstance(value, str) else value


class Sensitivity(Document):
    """A scenario, ranges of its parameters, and what is asked about them; immutable.

    Read one with `load` or `from_toml`; `run` does everything.
    """

    what: ClassVar = "sensitivity file"

    base: Any = Field(
        description="A scenario file, relative to this file's folder, or the scenario itself.",
        json_schema_extra={"anyOf": [{"type": "string"}, {"type": "object"}]},
    )
    method: Literal["morris", "sobol"] = Field(
        description="morris: screening, samples × (parameters + 1) points. sobol: shares of the variance, "
        "samples × (parameters + 2) points."
    )
    samples: Annotated[Positive, Field(ge=2, le=_MOST)] = Field(
        description="morris: trajectories. sobol: base samples, a power of two."
    )
    seed: Count = Field(default=1, description="Of the sampling and of the bootstrap, not of the scenarios.")
    level: Annotated[float, Field(gt=0, lt=1)] = Field(default=0.95, description="Of confidence.")
    response: Annotated[tuple[str, ...], BeforeValidator(_several), Field(min_length=1)] = Field(
        default=("translation_cycles_per_access",), description="Columns of the summary that may depend on them."
    )
    vms: Literal["mean", "max", "sum"] = Field(default="mean", description="Makes one number of those of all VMs.")
    names: dict[str, Keys] = Field(default={}, description="Short names, each with the key or keys that it sets.")
    ranges: dict[str, Range] = Field(min_length=1, description="The parameters, by name or key.")
    derive: dict[str, str] = Field(default={}, description="Values computed from those of the parameters.")

    @property
    def parameters(self) -> tuple[str, ...]:
        """Their names, in the order of the file."""
        return tuple(self.ranges)

    @cached_property
    def shares(self) -> Floats:
        """The design on the unit cube: float64, a row for each evaluation and a column for each parameter.

        Raises
        ------
        InputError
            The extra is not installed.
        """
        _need_salib()
        if self.method == "morris":
            from SALib.sample import morris

            made = morris.sample(self._problem, self.samples, num_levels=_LEVELS, seed=self.seed)
        else:
            from SALib.sample import sobol

            made = sobol.sample(self._problem, self.samples, calc_second_order=False, seed=self.seed)
        return np.asarray(made, np.float64)

    @cached_property
    def evaluations(self) -> tuple[tuple[Value, ...], ...]:
        """The value of each parameter at each evaluation of the design; some may be equal."""
        ranges = self.ranges.values()
        return tuple(
            tuple(range_.value(float(share)) for range_, share in zip(ranges, row, strict=True)) for row in self.shares
        )

    def sweep(self) -> Sweep:
        """Return the sweep over all evaluations that differ."""
        rows = [dict(zip(self.parameters, row, strict=True)) for row in dict.fromkeys(self.evaluations)]
        return Sweep.model_validate(self._tables() | {"list": rows}, context={"folder": self.folder})

    def run(self, out: str | Path, **options: Any) -> pd.DataFrame:
        """Run what has not been run of the points, and return the indices.

        Parameters
        ----------
        out : path
            The store of the points, as of `vmsim.sweeps.run_sweep`.
        **options
            As of `vmsim.sweeps.run_sweep`.

        Returns
        -------
        DataFrame
            As of `indices`.

        Raises
        ------
        InputError
            A point failed, or its simulated machine ran out of memory: its response would mean something else.
        """
        from vmsim.sweeps.driver import run_sweep
        from vmsim.sweeps.tables import read_results

        sweep = self.sweep()
        summary = run_sweep(sweep, Path(out), **options)
        if summary.interrupted:
            raise KeyboardInterrupt(summary.kept(Path(out)))
        return self.indices(self.responses(sweep, read_results(out)))

    def responses(self, sweep: Sweep, results: pd.DataFrame) -> dict[str, Floats]:
        """Return the responses at each evaluation, in the order of the design.

        Parameters
        ----------
        sweep : Sweep
            As `sweep` returns it.
        results : DataFrame
            Its results: a row for each point and VM.

        Raises
        ------
        InputError
            A point is missing, or a VM did not run to its end.
        """
        points = {tuple(point.values[name] for name in self.parameters): point.identity for point in sweep.points()}
        mine = results[results["point"].isin([*points.values()])]
        missing = len({*points.values()}) - mine["point"].nunique()
        if missing:
            raise InputError(f"{missing} of {len(points)} points failed, and indices need them all.")
        stopped = mine[~mine["finished"]]
        if len(stopped):
            worst = stopped.iloc[0]
            where = ", ".join(f"{name} = {worst[name]}" for name in self.parameters)
            raise InputError(
                f"At {where}, VM {worst['vm']} did not run to its end ({stopped['point'].nunique()} of {len(points)} "
                f"points ran out of memory): change the ranges, or give the host or the VM more memory."
            )
        order = [points[row] for row in self.evaluations]
        grouped = mine.groupby("point")[[*self.response]].agg(self.vms)
        return {name: grouped[name].reindex(order).to_numpy(np.float64) for name in self.response}

    def indices(self, responses: Mapping[str, Floats]) -> pd.DataFrame:
        """Return the indices of every parameter.

        Parameters
        ----------
        responses : mapping of str to array
            By name, float64: a value for each evaluation.

        Returns
        -------
        DataFrame
            response, parameter and, as `INDICES` says, for Morris (Technometrics 1991; Campolongo et al. 2007)
            mu_star, its confidence (half of the interval's width), mu and sigma, in units of the response for a way
            through the whole range; for Sobol (Saltelli et al. 2010) ST, S1 and their confidences, shares of the
            variance. What matters most comes first.
        """
        import pandas as pd

        rows: list[dict[str, Any]] = []
        for name, values in responses.items():
            found = self._found(np.asarray(values, np.float64))
            mine = [
                {"response": name, "parameter": parameter}
                | {index: float(found[index][place]) for index in INDICES[self.method]}
                for place, parameter in enumerate(self.parameters)
            ]
            rows += sorted(mine, key=lambda row: -row[INDICES[self.method][0]])
        return pd.DataFrame(rows)

    def _found(self, values: Floats) -> Mapping[str, Floats]:
        _need_salib()
        if np.ptp(values) == 0:  # estimators would divide by the variance
            return {index: np.zeros(len(self.ranges)) for index in INDICES[self.method]}
        common: dict[str, Any] = {"num_resamples": _RESAMPLES, "conf_level": self.level, "seed": self.seed}
        if self.method == "morris":
            from SALib.analyze import morris

            return dict(morris.analyze(self._problem, self.shares, values, num_levels=_LEVELS, **common))
        from SALib.analyze import sobol

        return dict(sobol.analyze(self._problem, values, calc_second_order=False, **common))

    @property
    def _problem(self) -> dict[str, Any]:
        bounds = [[0.0, 1.0]] * len(self.ranges)
        return {"num_vars": len(self.ranges), "names": list(self.parameters), "bounds": bounds}

    def _tables(self) -> dict[str, Any]:
        """Return what a sweep is told too."""
        tables = {"base": self.base, "names": self.names, "derive": self.derive}
        varies_seed = any("seed" in self.names.get(name, (name,)) for name in self.ranges)
        return tables if varies_seed else tables | {"seeds": "common"}

    @model_validator(mode="after")
    def _check(self) -> Self:
        raise_problems([*self._own_problems(), *self._sweep_problems()])
        return self

    def _own_problems(self) -> Iterator[Problem]:
        if self.method == "sobol" and self.samples & (self.samples - 1):
            near = 1 << self.samples.bit_length()
            text = f"found {self.samples}, but a Sobol sequence is balanced at powers of two: {near // 2} or {near}"
            yield Problem(("samples",), text)
        for name in self.response:
            if name not in _RESPONSES:
                text = f"{name!r} is not a column of numbers of the summary. {nearest(name, _RESPONSES)}"
                yield Problem(("response",), text)

    def _sweep_problems(self) -> Iterator[Problem]:
        """Yield what a sweep over the same ranges would complain of, at the keys of this file."""
        sample = {"kind": "random", "points": 1, "ranges": self.ranges}
        try:
            Sweep.model_validate(self._tables() | {"sample": sample}, context={"folder": self.folder})
        except ValidationError as error:
            for problem in problems_of(error, Sweep):
                yield problem._replace(path=_here(problem.path))


def _here(path: KeyPath) -> KeyPath:
    return path[1:] if path[:1] == ("sample",) else path


def _need_salib() -> None:
    if find_spec("SALib") is None:
        raise InputError('Sensitivity needs SALib, which is not installed here: pip install "vmsim[sensitivity]".')
