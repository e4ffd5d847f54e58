"""What replicates say together: a mean, and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from vmsim.base.errors import InputError, nearest

__all__ = ["summarize"]


def summarize(
    table: pd.DataFrame, by: str | Sequence[str], value: str | Sequence[str], *, level: float = 0.95
) -> pd.DataFrame:
    """Return the mean and its confidence interval of each group of rows, as of the rows of all replicates of a point.

    The interval is Student's: mean ± t · s / √n, where s is the standard deviation of the n rows (n − 1 in the
    denominator) and t the quantile of the t distribution with n − 1 degrees of freedom (Student, Biometrika 1908).
    It holds for independent rows. The VMs of one run are not: they share a host. Group by ``vm``, or choose one.

    Parameters
    ----------
    table : DataFrame
        Tidy: one row per observation, as from `vmsim.sweeps.read_results`.
    by : str or sequence of str
        Columns whose values make a group: the axes, and ``vm``. A missing value is a value like any other.
    value : str or sequence of str
        Columns to summarise; numbers, in whatever unit. Rows where one is missing do not count for it.
    level : float, optional
        Of confidence, between 0 and 1.

    Returns
    -------
    DataFrame
        In the order in which the groups first appear: the columns of `by`, ``value`` (the column's name, only where
        several were asked for), ``n``, ``mean``, ``std`` and the ends of the interval, ``low`` and ``high``. Of one
        observation alone, ``std``, ``low`` and ``high`` are not numbers.

    Raises
    ------
    InputError
        No such column, a column that has no numbers, or a level that is no probability.
    """
    from scipy.stats import t

    groups, values = _listed(by), _listed(value)
    if not 0 < level < 1:
        raise InputError(f"level: found {level!r}, expected a share between 0 and 1 such as 0.95.")
    _check(table, groups, values)
    parts = []
    for column in values:
        part = table.groupby(groups, sort=False, dropna=False)[column].agg(["count", "mean", "std"]).reset_index()
        part = part.rename(columns={"count": "n"})
        half = t.ppf((1 + level) / 2, (part["n"] - 1).clip(lower=1)) * part["std"] / part["n"].clip(lower=1) ** 0.5
        part["low"], part["high"] = part["mean"] - half, part["mean"] + half
        if not isinstance(value, str):
            part.insert(len(groups), "value", column)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _listed(names: str | Sequence[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _check(table: pd.DataFrame, groups: list[str], values: list[str]) -> None:
    if not groups or not values:
        raise InputError(f"{'value' if groups else 'by'}: expected at least one column.")
    for column in (*groups, *values):
        if column not in table.columns:
            raise InputError(f"There is no column {column!r}. {nearest(column, map(str, table.columns))}")
    for column in values:
        if not pd.api.types.is_numeric_dtype(table[column]) or pd.api.types.is_bool_dtype(table[column]):
            raise InputError(f"{column}: expected a column of numbers, found {table[column].dtype}.")
