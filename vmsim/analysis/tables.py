"""Tables made of results' tables, for people and for figures."""

from __future__ import annotations

import pandas as pd

__all__ = [
    "compare_modes",
    "cycles_by_cause",
    "exits_by_reason",
    "memory_by_kind",
    "side_by_side",
    "slowdown",
    "total_by_mode",
]


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


def total_by_mode(summary: pd.DataFrame, column: str = "total_cycles", *, by: str = "vm_group") -> pd.DataFrame:
    """Put what VMs cost together side by side for all modes, in cycles per access.

    Parameters
    ----------
    summary : DataFrame
        Of a `Comparison`.
    column : str, optional
        Which of its columns of cycles to add up.
    by : str, optional
        The column whose equal values count together: ``vm_group``, ``workload`` or ``vm``.

    Returns
    -------
    DataFrame
        A row for each value of `by`, and if there are several one called "total" for all of them: `by`, and a column
        for each mode with the sum of `column` over the sum of accesses.
    """
    modes = list(dict.fromkeys(summary["mode"]))
    parts = summary.groupby([by, "mode"], sort=False)[[column, "accesses"]].sum()
    names = list(dict.fromkeys(summary[by]))
    wide = pd.DataFrame({by: pd.Series(names, dtype="str")})
    for mode in modes:
        mine = parts.xs(mode, level="mode").reindex(names)
        wide[mode] = (mine[column] / mine["accesses"].where(mine["accesses"] > 0)).to_numpy()
    if len(names) < 2:
        return wide
    sums = summary.groupby("mode", sort=False)[[column, "accesses"]].sum()
    total = {mode: sums.loc[mode, column] / sums.loc[mode, "accesses"] for mode in modes}
    return pd.concat([wide, pd.DataFrame([{by: "total", **total}])], ignore_index=True)


def slowdown(wide: pd.DataFrame, base: str = "native") -> pd.DataFrame:
    """Return what other modes cost over one of them, as ratios.

    Parameters
    ----------
    wide : DataFrame
        As from `total_by_mode`: a column of names, and one for each mode.
    base : str, optional
        The mode that the others are compared with; the first where there is none of that name.

    Returns
    -------
    DataFrame
        The names, and a column for each mode but the base.
    """
    modes = list(wide.columns[1:])
    base = base if base in modes else modes[0]
    ratios = {mode: wide[mode] / wide[base].where(wide[base] != 0) for mode in modes if mode != base}
    return wide[[wide.columns[0]]].assign(**ratios)


def cycles_by_cause(summary: pd.DataFrame, cycles: pd.DataFrame, *, by: str = "workload") -> pd.DataFrame:
    """Add up the cycles of all VMs that run the same workload, or are of one group, in the same mode.

    Parameters
    ----------
    summary, cycles : DataFrame
        Of a `Result` or `Comparison`.
    by : str, optional
        ``workload`` or ``vm_group``.

    Returns
    -------
    DataFrame
        `by`, mode, cause, cycles, accesses, per_access (cycles / accesses), in the order of the input.
    """
    keys = ["vm", "mode"] if "mode" in cycles else ["vm"]
    known = summary[[*dict.fromkeys([*keys, "mode", by, "accesses"])]]
    joined = cycles.drop(columns="per_access").merge(known, on=keys, how="left")
    grouped = joined.groupby([by, "mode", "cause"], sort=False, as_index=False)
    table = grouped[["cycles", "accesses"]].sum()
    table["per_access"] = table["cycles"] / table["accesses"]
    return table


def memory_by_kind(summary: pd.DataFrame, *, by: str = "workload") -> pd.DataFrame:
    """Add up the host's frames that VMs have at their end, by workload or group, mode and what they are used for.

    Parameters
    ----------
    summary : DataFrame
        Of a `Result` or `Comparison`.
    by : str, optional
        ``workload`` or ``vm_group``.

    Returns
    -------
    DataFrame
        `by`, mode, kind (guest, table, pool), frames (of 4 KiB), in the order of the input.
    """
    kinds = {f"{kind}_frames": kind for kind in ("guest", "table", "pool")}
    keys = [by, "mode", "kind"]
    long = summary.rename(columns=kinds).melt(keys[:2], [*kinds.values()], var_name="kind", value_name="frames")
    table: pd.DataFrame = long.groupby(keys, sort=False, as_index=False)[["frames"]].sum()
    return table


def exits_by_reason(summary: pd.DataFrame, exits: pd.DataFrame, *, by: str = "workload") -> pd.DataFrame:
    """Add up the exits of all VMs that run the same workload, or are of one group, in the same mode.

    Parameters
    ----------
    summary, exits : DataFrame
        Of a `Comparison`.
    by : str, optional
        ``workload`` or ``vm_group``.

    Returns
    -------
    DataFrame
        `by`, mode, reason, count, cycles, per_access (count / accesses), in the order of the input. A mode that
        has none has a row with the reason "".
    """
    keys = [by, "mode"]
    accesses = summary.groupby(keys, sort=False, as_index=False)["accesses"].sum()
    joined = exits.merge(summary[["vm", *keys]], on=["vm", "mode"])
    made = joined.groupby([*keys, "reason"], sort=False, as_index=False)[["count", "cycles"]].sum()
    table = accesses.merge(made, on=keys, how="left").fillna({"reason": "", "count": 0, "cycles": 0})
    table = table.astype({"count": "int64", "cycles": "int64"})
    table["per_access"] = table["count"] / table["accesses"]
    return pd.DataFrame(table[[*keys, "reason", "count", "cycles", "per_access"]])


def side_by_side(table: pd.DataFrame, what: str, value: str, *, by: str = "workload") -> pd.DataFrame:
    """Put one figure of every workload or group side by side for all modes.

    Parameters
    ----------
    table : DataFrame
        `by`, mode, and columns called `what` and `value`.
    by : str, optional
        ``workload`` or ``vm_group``.

    Returns
    -------
    DataFrame
        A row for each value of `by` and `what` that is not zero everywhere, in the order in which they first occur; a
        column for each mode, not a number where a mode has no such row.
    """
    there = table[table[what] != ""]
    first = there.drop_duplicates([by, what])[[by, what]]
    order = {name: number for number, name in enumerate(dict.fromkeys(table[by]))}
    wide = first.sort_values(by, key=lambda names: names.map(order), kind="stable").reset_index(drop=True)
    places = pd.MultiIndex.from_frame(wide)
    for mode in dict.fromkeys(table["mode"]):
        values = there[there["mode"] == mode].set_index([by, what])[value]
        wide[mode] = values.reindex(places).to_numpy()
    kept: pd.DataFrame = wide[(wide.iloc[:, 2:].fillna(0) != 0).any(axis=1)].reset_index(drop=True)
    return kept
