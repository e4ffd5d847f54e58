"""Tables made of results' tables, for people and for figures."""

from __future__ import annotations

import pandas as pd

__all__ = ["compare_modes", "cycles_by_cause"]


def compare_modes(summary: pd.DataFrame, column: str = "cycles_per_access") -> pd.DataFrame:
    """Put one figure of every VM side by side for all modes.

    Parameters
    ----------
    summary : DataFrame
        Of a `Comparison`, or of several results of the same VMs, one below the other.
    column : str, optional
        Which of its columns to compare.

    Returns
    -------
    DataFrame
        A row for each VM: vm, workload, a column for each mode, and for each mode but the first of native and what
        comes first its ratio to that one (``ept/native``; not a number where that is zero).
    """
    modes = list(dict.fromkeys(summary["mode"]))
    base = "native" if "native" in modes else modes[0]
    first = summary.drop_duplicates("vm")
    wide = first[["vm", "workload"]].reset_index(drop=True)
    for mode in modes:
        values = summary[summary["mode"] == mode].set_index("vm")[column]
        wide[mode] = values.reindex(wide["vm"]).to_numpy()
    for mode in modes:
        if mode != base:
            wide[f"{mode}/{base}"] = wide[mode] / wide[base].where(wide[base] != 0)
    return wide


def cycles_by_cause(summary: pd.DataFrame, cycles: pd.DataFrame) -> pd.DataFrame:
    """Add up the cycles of all VMs that run the same workload in the same mode.

    Parameters
    ----------
    summary, cycles : DataFrame
        Of a `Result` or `Comparison`.

    Returns
    -------
    DataFrame
        workload, mode, cause, cycles, accesses, per_access (cycles / accesses), in the order of the input.
    """
    keys = ["vm", "mode"] if "mode" in cycles else ["vm"]
    known = summary[[*dict.fromkeys([*keys, "mode", "workload", "accesses"])]]
    joined = cycles.drop(columns="per_access").merge(known, on=keys, how="left")
    grouped = joined.groupby(["workload", "mode", "cause"], sort=False, as_index=False)
    table = grouped[["cycles", "accesses"]].sum()
    table["per_access"] = table["cycles"] / table["accesses"]
    return table
