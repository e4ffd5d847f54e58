"""Tables made of results' tables, for people and for figures."""

from __future__ import annotations

import pandas as pd

__all__ = ["compare_modes", "cycles_by_cause", "exits_by_reason", "memory_by_kind", "side_by_side"]


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


def memory_by_kind(summary: pd.DataFrame) -> pd.DataFrame:
    """Add up the host's frames that VMs have at their end, by workload, mode and what they are used for.

    Parameters
    ----------
    summary : DataFrame
        Of a `Result` or `Comparison`.

    Returns
    -------
    DataFrame
        workload, mode, kind (guest, table, pool), frames (of 4 KiB), in the order of the input.
    """
    kinds = {f"{kind}_frames": kind for kind in ("guest", "table", "pool")}
    keys = ["workload", "mode", "kind"]
    long = summary.rename(columns=kinds).melt(keys[:2], [*kinds.values()], var_name="kind", value_name="frames")
    table: pd.DataFrame = long.groupby(keys, sort=False, as_index=False)[["frames"]].sum()
    return table


def exits_by_reason(summary: pd.DataFrame, exits: pd.DataFrame) -> pd.DataFrame:
    """Add up the exits of all VMs that run the same workload in the same mode.

    Parameters
    ----------
    summary, exits : DataFrame
        Of a `Comparison`.

    Returns
    -------
    DataFrame
        workload, mode, reason, count, cycles, per_access (count / accesses), in the order of the input. A mode that
        has none has a row with the reason "".
    """
    keys = ["workload", "mode"]
    accesses = summary.groupby(keys, sort=False, as_index=False)["accesses"].sum()
    joined = exits.merge(summary[["vm", *keys]], on=["vm", "mode"])
    made = joined.groupby([*keys, "reason"], sort=False, as_index=False)[["count", "cycles"]].sum()
    table = accesses.merge(made, on=keys, how="left").fillna({"reason": "", "count": 0, "cycles": 0})
    table = table.astype({"count": "int64", "cycles": "int64"})
    table["per_access"] = table["count"] / table["accesses"]
    return pd.DataFrame(table[[*keys, "reason", "count", "cycles", "per_access"]])


def side_by_side(table: pd.DataFrame, what: str, value: str) -> pd.DataFrame:
    """Put one figure of every workload side by side for all modes.

    Parameters
    ----------
    table : DataFrame
        workload, mode, and columns called `what` and `value`.

    Returns
    -------
    DataFrame
        A row for each workload and `what` that is not zero everywhere, in the order in which they first occur; a
        column for each mode, not a number where a mode has no such row.
    """
    there = table[table[what] != ""]
    first = there.drop_duplicates(["workload", what])[["workload", what]]
    order = {workload: number for number, workload in enumerate(dict.fromkeys(table["workload"]))}
    wide = first.sort_values("workload", key=lambda names: names.map(order), kind="stable").reset_index(drop=True)
    places = pd.MultiIndex.from_frame(wide)
    for mode in dict.fromkeys(table["mode"]):
        values = there[there["mode"] == mode].set_index(["workload", what])[value]
        wide[mode] = values.reindex(places).to_numpy()
    kept: pd.DataFrame = wide[(wide.iloc[:, 2:].fillna(0) != 0).any(axis=1)].reset_index(drop=True)
    return kept
