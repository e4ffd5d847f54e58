"""Do the indices say which parameters matter?"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from vmsim.base.errors import InputError
from vmsim.sweeps import sensitivity
from vmsim.sweeps.sensitivity import Sensitivity

CUBE = """
method = "{method}"
samples = {samples}
seed = 3
[base]
[base.host]
memory = "128MiB"
[[base.vm]]
name = "vm"
count = 2
memory = "32MiB"
mode = "ept"
workload = {{ kind = "uniform", footprint = "1MiB", accesses = 2000 }}
"""
PI = 3.141592653589793


def cube(method: str, samples: int, **ranges: tuple[float, float]) -> Sensitivity:
    tables = "".join(f"[ranges.{name}]\nlow = {low}\nhigh = {high}\n" for name, (low, high) in ranges.items())
    return Sensitivity.from_toml(CUBE.format(method=method, samples=samples) + tables)


def values(asked: Sensitivity) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array(asked.evaluations, np.float64)


def test_sobol_finds_the_known_indices_of_ishigamis_function() -> None:
    """sin x + 7 sin² y + 0.1 z⁴ sin x over [-π, π]³: closed forms of the variances (Ishigami & Homma 1990)."""
    asked = cube("sobol", 1024, x=(-PI, PI), y=(-PI, PI), z=(-PI, PI))
    x, y, z = values(asked).T
    found = asked.indices({"f": np.sin(x) + 7 * np.sin(y) ** 2 + 0.1 * z**4 * np.sin(x)}).set_index("parameter")
    x_alone = 0.5 * (1 + 0.1 * PI**4 / 5) ** 2
    y_alone = 7**2 / 8
    x_with_z = 0.1**2 * PI**8 * (1 / 18 - 1 / 50)
    all_ = x_alone + y_alone + x_with_z
    assert len(asked.evaluations) == 1024 * (3 + 2)
    expected = {"x": (x_alone, x_alone + x_with_z), "y": (y_alone, y_alone), "z": (0.0, x_with_z)}
    for name, (alone, total) in expected.items():
        row = found.loc[name]
        assert row["S1"] == pytest.approx(alone / all_, abs=0.04)
        assert row["ST"] == pytest.approx(total / all_, abs=0.04)
        assert abs(row["S1"] - alone / all_) < 2 * row["S1_conf"]
        assert 0 < row["ST_conf"] < 0.15
    assert found.index.tolist() == ["x", "y", "z"]  # what matters most comes first


def test_morris_effects_of_a_plane_are_its_slopes() -> None:
    asked = cube("morris", 10, a=(0.0, 2.0), b=(10.0, 20.0), c=(0.0, 1.0))
    a, b, _ = values(asked).T
    found = asked.indices({"f": 3 * a - b}).set_index("parameter")
    assert len(asked.evaluations) == 10 * (3 + 1)
    assert found["mu_star"].to_dict() == pytest.approx({"b": 10, "a": 6, "c": 0})
    assert found["mu"].to_dict() == pytest.approx({"b": -10, "a": 6, "c": 0})
    assert found["sigma"].to_dict() == pytest.approx({"b": 0, "a": 0, "c": 0}, abs=1e-9)


def test_morris_tells_a_curve_from_a_plane() -> None:
    asked = cube("morris", 20, a=(0.0, 1.0), b=(0.0, 1.0))
    a, b = values(asked).T
    found = asked.indices({"f": a + 4 * (b - 0.5) ** 2}).set_index("parameter")
    assert found.loc["a", "sigma"] == pytest.approx(0, abs=1e-9)
    assert found.loc["b", "sigma"] > 0.5
    assert abs(found.loc["b", "mu"]) < found.loc["b", "mu_star"]


@pytest.mark.parametrize("method", ["morris", "sobol"])
def test_the_same_file_gives_the_same_points_and_indices_and_another_seed_others(method: str) -> None:
    asked, again = (cube(method, 16, a=(0.0, 1.0), b=(0.0, 1.0)) for _ in range(2))
    other = asked.model_copy(update={"seed": 4})
    assert asked.evaluations == again.evaluations
    response = {"f": values(asked)[:, 0] ** 2}
    pd.testing.assert_frame_equal(asked.indices(response), again.indices(response), check_exact=True)
    assert Sensitivity.model_validate(other.model_dump()).evaluations != asked.evaluations


@pytest.mark.parametrize("method", ["morris", "sobol"])
def test_a_response_that_never_changes_depends_on_nothing(method: str) -> None:
    asked = cube(method, 8, a=(0.0, 1.0), b=(0.0, 1.0))
    assert not asked.indices({"f": np.full(len(asked.evaluations), 7.0)}).select_dtypes("number").to_numpy().any()


SMALL = (
    CUBE.format(method="morris", samples=3).replace("seed = 3", 'response = ["translation_cycles_per_access", "exits"]')
    + """
[names]
footprint = "vm.workload.footprint"
batch = "host.pool.batch"
[ranges.footprint]
low = "64KiB"
high = "16MiB"
scale = "log"
[ranges.batch]
low = 16
high = 64
"""
)


def test_walks_depend_on_the_footprint_and_not_on_the_pools_batch(tmp_path: Path) -> None:
    asked = Sensitivity.from_toml(SMALL)
    table = asked.run(tmp_path / "store", jobs=1).set_index(["response", "parameter"])
    for response in ("translation_cycles_per_access", "exits"):
        assert table.loc[(response, "footprint"), "mu_star"] > 0
        assert table.loc[(response, "batch"), "mu_star"] == 0
        assert table.loc[response].index[0] == "footprint"
    events: list[dict[str, Any]] = []
    again = asked.run(tmp_path / "store", jobs=1, listener=events.append)
    assert not [event for event in events if event["event"] == "done"]
    pd.testing.assert_frame_equal(again.set_index(["response", "parameter"]), table, check_exact=True)


def results_of(asked: Sensitivity, vms: dict[str, float], **columns: Any) -> pd.DataFrame:
    """Return what a store would hold if exits were the batch times what `vms` says."""
    rows = [
        {"point": point.identity, **point.values, "vm": vm, "finished": True, "exits": point.values["batch"] * by}
        | {"translation_cycles_per_access": 1.0}
        | columns
        for point in asked.sweep().points()
        for vm, by in vms.items()
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(("how", "factor"), [("mean", 2.5), ("max", 4.0), ("sum", 5.0)])
def test_vms_make_one_number(how: str, factor: float) -> None:
    asked = Sensitivity.from_toml(SMALL.replace('method = "morris"', f'method = "morris"\nvms = "{how}"'))
    results = results_of(asked, {"vm-0": 1.0, "vm-1": 4.0}).sample(frac=1, random_state=1)
    found = asked.responses(asked.sweep(), results)["exits"]
    assert found.tolist() == [factor * batch for _, batch in asked.evaluations]


def test_points_are_run_once_and_all_with_one_seed() -> None:
    asked = Sensitivity.from_toml(SMALL)
    points = [*asked.sweep().points()]
    assert len(points) == len({*asked.evaluations}) <= len(asked.evaluations) == 9
    assert {point.scenario.seed for point in points} == {asked.sweep().scenario.seed}


def test_a_point_that_failed_or_ran_out_of_memory_is_no_response() -> None:
    asked = Sensitivity.from_toml(SMALL)
    results = results_of(asked, {"vm-0": 1.0})
    with pytest.raises(InputError, match=r"1 of .* points failed"):
        asked.responses(asked.sweep(), results.iloc[1:])
    with pytest.raises(InputError, match=r"At footprint = .*, batch = .*VM vm-0 did not run to its end"):
        asked.responses(asked.sweep(), results_of(asked, {"vm-0": 1.0}, finished=False))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('method = "morris"', 'method = "moris"', "Did you mean 'morris'"),
        ('method = "morris"', 'method = "sobol"', "powers of two: 2 or 4"),
        ("samples = 3", "samples = 1", "at least 2"),
        ('"exits"', '"exitts"', "Did you mean 'exits'"),
        ('"exits"', '"mode"', "not a column of numbers"),
        ("low = 16", "low = 640", "low < high"),
        ("[ranges.batch]", "[ranges.batsh]", "names.batch"),
        ("[names]", "[name]", "Did you mean 'names'"),
        ('memory = "128MiB"', 'memory = "much"', "base.host.memory"),
    ],
)
def test_a_wrong_file_is_refused_with_line_and_key(old: str, new: str, said: str) -> None:
    assert old in SMALL
    with pytest.raises(InputError, match=r"^file\.toml:\d+: ") as raised:
        Sensitivity.from_toml(SMALL.replace(old, new, 1), source="file.toml")
    assert said in str(raised.value)


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensitivity, "find_spec", lambda module: None)
    with pytest.raises(InputError, match=r'pip install "vmsim\[sensitivity\]"'):
        _ = cube("morris", 4, a=(0.0, 1.0)).shares


@pytest.mark.parametrize("method", ["morris", "sobol"])
def test_the_command_writes_a_table_and_a_figure(
    method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vmsim.cli import main
    from vmsim.sweeps import driver, tables

    monkeypatch.setattr(driver, "run_sweep", lambda *_, **__: driver.Summary(9, 0, 9, 0, False, 0.0))
    file = tmp_path / "which.toml"
    file.write_text(SMALL.replace("morris", method).replace("samples = 3", "samples = 4"))
    monkeypatch.setattr(tables, "read_results", lambda _: results_of(Sensitivity.load(file), {"vm-0": 1.0}))
    (tmp_path / "which.results").mkdir()
    for option in ([], ["--json"]):
        with pytest.raises(SystemExit) as leaving:
            main(["sensitivity", str(file), *option])
        assert leaving.value.code == 0
        out = capsys.readouterr().out
        if option:
            said = json.loads(out)
            assert (said["method"], said["level"], len(said["indices"])) == (method, 0.95, 4)
        else:
            assert "translation_cycles_per_access is the same at all points." in out
    folder = tmp_path / "which.results"
    table = pd.read_csv(folder / "indices.csv")
    assert table[["response", "parameter"]].to_numpy().tolist()[2:] == [["exits", "batch"], ["exits", "footprint"]]
    assert (folder / "indices.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "indices.pdf").read_bytes().startswith(b"%PDF")


def test_the_figure_has_a_bar_for_each_index_the_most_important_on_top(figure_axes: Callable[[], Any]) -> None:
    from vmsim.analysis.indices import sensitivity_bars

    asked = cube("sobol", 64, a=(0.0, 1.0), b=(0.0, 1.0))
    a, b = values(asked).T
    ax = figure_axes()
    sensitivity_bars(asked.indices({"f": a + 3 * b}), ax)
    places = {label.get_text(): place for label, place in zip(ax.get_yticklabels(), ax.get_yticks(), strict=True)}
    assert places["b"] > places["a"]
    assert [len(bars) for bars in ax.containers if hasattr(bars, "patches")] == [2, 2]


@pytest.fixture
def figure_axes() -> Callable[[], Any]:
    from matplotlib.figure import Figure

    return lambda: Figure().subplots()
