"""Does a sweep file give the points it says, and is a wrong one refused with the place?"""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sweeps.fake import BASE
from vmsim.base.errors import InputError
from vmsim.scenario import Scenario
from vmsim.sweeps import Sweep
from vmsim.sweeps.plan import Plan
from vmsim.sweeps.spec import Range

SWEEP = """
replicates = 2
where = ["low < high", "batch != 7"]
[names]
low = "host.pool.min"
high = "host.pool.max"
batch = "host.pool.batch"
page = ["vm.guest_page", "vm.host_page"]
[axes]
low = [1, 32]
[[zip]]
"vm.workload.accesses" = [100, 200, 300]
"vm.workload.writes" = [0.0, 0.5, 1.0]
[[list]]
batch = 7
page = "4K"
[[list]]
batch = 8
page = "2M"
[derive]
high = "2 * low"
"""


def of(text: str) -> Sweep:
    return Sweep.from_toml(text + BASE)


def test_axes_zips_and_lists_are_combined_the_last_fastest() -> None:
    points = list(of(SWEEP).points())
    rows = product([1, 32], [(100, 0.0), (200, 0.5), (300, 1.0)], [(8, "2M")], [0, 1])
    expected = [
        ({"low": a, "vm.workload.accesses": b, "vm.workload.writes": c, "batch": d, "page": e, "high": 2 * a}, r)
        for a, (b, c), (d, e), r in rows
    ]
    assert [(point.values, point.replicate) for point in points] == expected
    last = points[-1].scenario
    assert (last.host.pool.min, last.host.pool.max, last.host.pool.batch) == (32, 64, 8)
    assert (last.vm[0].guest_page, last.vm[0].host_page) == ("2M", "2M")
    assert last.vms[0].workload.accesses == 300


def test_it_survives_being_written_and_read() -> None:
    sweep = of(SWEEP)
    again = Sweep.from_toml(sweep.to_toml())
    assert again == sweep
    assert list(again.points()) == list(sweep.points())


@given(
    axes=st.dictionaries(
        st.sampled_from(["host.pool.batch", "host.cores", "vm.workload.accesses"]),
        st.lists(st.integers(1, 9), min_size=1, max_size=4, unique=True),
    ),
    replicates=st.integers(1, 3),
)
def test_any_axes_make_their_product_and_survive_being_written(axes: dict[str, list[int]], replicates: int) -> None:
    sweep = Sweep.of(
        Scenario.from_toml(BASE.replace("[base.", "[").replace("[[base.", "[[")), axes, replicates=replicates
    )
    points = list(sweep.points())
    size = replicates
    for values in axes.values():
        size *= len(values)
    assert len({point.identity for point in points}) == len(points) == size
    assert Sweep.from_toml(sweep.to_toml()) == sweep


def test_the_base_may_be_a_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text(BASE.replace("[base.", "[").replace("[[base.", "[["))
    (tmp_path / "sweep.toml").write_text('base = "base.toml"\naxes."host.cores" = [1, 2]\n')
    assert [point.scenario.host.cores for point in Sweep.load(tmp_path / "sweep.toml").points()] == [1, 2]


@pytest.mark.parametrize("kind", ["random", "latin-hypercube", "sobol"])
def test_a_sample_fills_its_ranges_and_is_the_same_again(kind: str) -> None:
    text = f"""
[sample]
kind = "{kind}"
points = 64
[sample.ranges]
"vm.workload.footprint" = {{ low = "64KiB", high = "4MiB", scale = "log" }}
"vm.workload.writes" = {{ low = 0.0, high = 1.0 }}
"host.pool.min" = {{ low = 1, high = 64 }}
"vm.mode" = {{ choices = ["ept", "native"] }}
"""
    points = list(of(text).points())
    assert points == list(of(text).points())
    assert len(points) == 64
    footprints = [point.scenario.vms[0].workload.footprint for point in points]
    assert all(size % 4096 == 0 and 1 << 16 <= size <= 1 << 22 for size in footprints)
    assert 10 < sum(size < 1 << 19 for size in footprints) < 54  # half, on a logarithmic scale
    assert {point.values["vm.mode"] for point in points} == {"ept", "native"}
    if kind != "random":  # every quarter of a range has its quarter of the points
        writes = sorted(float(point.values["vm.workload.writes"]) for point in points)
        assert all(place / 64 - 0.02 <= value <= place / 64 + 0.04 for place, value in enumerate(writes))
    other = list(of(text.replace("points = 64", "points = 64\nseed = 2")).points())
    assert [point.values for point in other] != [point.values for point in points]


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 50), st.integers(1, 50), st.integers(1, 9))
def test_a_range_keeps_to_its_ends_and_its_step(share: float, low: int, span: int, step: int) -> None:
    try:
        range_ = Range(low=low, high=low + span, step=step)
    except ValueError:
        assert all(value % step for value in range(low, low + span + 1))
        return
    value = range_.value(share)
    assert type(value) is int
    assert low <= value <= low + span
    assert value % step == 0


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('axs."host.cores" = [1]', ":1: axs: unknown key. Did you mean 'axes'?"),
        ('axes."host.coers" = [1]', "host.coers: unknown key. Did you mean 'cores'?"),
        ('axes."vm.mod" = ["ept"]', "Did you mean 'mode'?"),
        ('axes."host.cores" = []', "axes.host.cores"),
        ('axes."host.cores" = 3', "axes.host.cores: found 3, expected an array"),
        ('axes."host.cores" = [[1]]', "neither a number, a text, nor true or false"),
        ('axes."host.cores" = [nan]', "expected a finite number"),
        ('axes.mode = ["ept"]', "'mode' is a column of every result"),
        ('names.mode = "vm.mode"\naxes.mode = ["auto", "ept"]', 'the mode that "auto" stands for'),
        ('names.walks = "vm.mode"\naxes.walks = ["ept"]', "'walks' is a column of every result"),
        ('axes."../x" = [1]', "expected a name of letters, digits"),
        ('axes."a/b" = [1]', "expected a name of letters, digits"),
        ('names.cores = "host.cores"', "nothing here has values for this name"),
        ('names.a = "host.cores"\naxes.a = [1]\naxes."host.cores" = [2]', "host.cores is set twice"),
        ('axes."host.cores" = [1]\nlist = [{"host.cores" = 2}]', "this is varied twice"),
        ('zip = [{"host.cores" = [1, 2], "host.pool.min" = [1]}]', "must be as many: host.cores has 2"),
        ('list = [{"host.cores" = 1}, {"host.pool.min" = 1}]', "expected the keys of the first table, host.cores"),
        ('where = "a.b < 3"', "'a.b' is neither the name nor the key of an axis"),
        ('where = "exit()"', "a call is not allowed"),
        ('where = "cores < 3"', "'cores' is neither the name nor the key of an axis"),
        ('derive."host.cores" = "1 / 0"', "division by zero"),
        ('sample = {kind = "sobol", points = 48, ranges = {"host.cores" = {low = 1, high = 2}}}', "32 or 64"),
        (
            'sample = {kind = "random", points = 4, ranges = {"host.cores" = {low = 3, high = 2}}}',
            "expected low < high",
        ),
        ('sample = {kind = "random", points = 4, ranges = {"host.cores" = {low = 3}}}', "a range has low and high"),
        ("replicates = 2\naxes.seed = [1, 2]", "replicates have seeds of their own"),
        ("replicates = 1_000_000\naxes.seed = [1]\n", "replicates have seeds of their own"),
        (
            'replicates = 1_000_000\naxes."vm.workload.accesses" = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]',
            "11,000,000 points",
        ),
        ('axes."host.pool.min" = [100]', "the point host.pool.min = 100: host.pool.min: pool.min > pool.max"),
    ],
)
def test_a_wrong_sweep_is_refused_with_the_place(text: str, told: str) -> None:
    with pytest.raises(InputError) as error:
        list(of(text + "\n").points())
    assert told in str(error.value)
    assert "\n  File" not in str(error.value)


def test_a_file_of_another_kind_is_refused_as_such() -> None:
    scenario = '[host]\ncpu = "yardstick"\n[[vm]]\nname = "a"\n'
    with pytest.raises(InputError, match=r"this is no sweep: .* \(host and vm\); `vmsim check` says what a file is"):
        Sweep.from_toml(scenario)
    with pytest.raises(InputError, match=r"this is no scenario: .* \(base, names and axes\)"):
        Scenario.from_toml('base = "scenario.toml"\n[names]\ncores = "host.cores"\n[axes]\ncores = [1, 2]\n')


def test_an_unknown_key_is_refused_with_the_nearest_as_one_sentence() -> None:
    with pytest.raises(InputError, match=r"host\.pool\.batchh: unknown key\. Did you mean 'batch'\?$"):
        list(of('axes."host.pool.batchh" = [100]\n').points())


def test_a_wrong_base_is_refused_with_its_key(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r":2: base\.host\.memori: unknown key. Did you mean 'memory'"):
        Sweep.from_toml(BASE.replace("memory", "memori", 1).replace("\n[base.host]", "[base.host]", 1))
    with pytest.raises(InputError, match=r":1: base: .*no such scenario"):
        Sweep.from_toml('base = "nowhere.toml"', folder=tmp_path)


def test_the_schema_describes_the_example() -> None:
    schema = Sweep.json_schema()
    assert schema["$schema"].endswith("2020-12/schema")
    assert {"base", "axes", "zip", "list", "sample", "derive", "where", "names", "seeds"} <= schema["properties"].keys()
    assert schema["required"] == ["base"]


MATRIX = 'axes."vm.mode" = ["native", "ept"]\naxes."vm.host_page" = ["4K", "2M"]\naxes."host.pool.min" = [1, 2]\n'


def test_a_condition_may_name_keys() -> None:
    points = list(of(f"""where = "not (vm.mode == 'native' and vm.host_page == '2M')"\n{MATRIX}""").points())
    assert len(points) == 6
    named = 'names.paging = "vm.mode"\naxes.paging = ["native", "ept"]\nwhere = "vm.mode != \'native\'"\n'
    assert [point.values for point in of(named).points()] == [{"paging": "ept"}]
    indexed = 'axes."vm.0.memory" = ["4MiB", "8MiB"]\nwhere = "vm.0.memory > \'4MiB\'"\n'
    assert [point.values for point in of(indexed).points()] == [{"vm.0.memory": "8MiB"}]


def test_a_point_that_cannot_be_is_refused_with_the_condition_that_leaves_its_like_out() -> None:
    with pytest.raises(InputError) as error:
        list(of(MATRIX).points())
    found = re.search(r'where = \["([^"]*)"\]', str(error.value))
    assert found is not None
    assert found[1] == "not (vm.mode == 'native' and vm.host_page == '2M')"
    assert len(list(of(f'where = ["{found[1]}"]\n{MATRIX}').points())) == 6


def test_points_that_cannot_be_are_skipped_and_counted() -> None:
    plan = Plan.of(of(f'invalid = "skip"\n{MATRIX}'))
    assert (plan.total, plan.skipped) == (6, 2)
    with pytest.raises(InputError, match="no second dimension"):  # a sweep without points is none
        list(of('invalid = "skip"\naxes."vm.mode" = ["native"]\naxes."vm.host_page" = ["2M"]').points())


def test_keys_of_a_mode_are_left_out_where_they_have_no_effect_and_refused_where_they_never_have() -> None:
    text = 'axes."vm.mode" = ["native", "shadow"]\naxes."vm.shadow.limit" = [16, 32]\n'
    plan = Plan.of(of(text))
    assert len(plan) == 3  # a native run is the same with either
    with pytest.raises(InputError, match=r"vm\.shadow\.limit: it has no effect at any point"):
        list(of('axes."vm.shadow.limit" = [16, 32]\n').points())


def test_an_axis_may_be_called_what_its_column_is_called(tmp_path: Path) -> None:
    text = 'names.mode = "vm.mode"\naxes.mode = ["native", "ept"]\n'
    table = read_points_of(of(text), tmp_path / "r")
    assert sorted(table["mode"]) == ["ept", "native"]
    assert list(table.columns).count("mode") == 1


def read_points_of(sweep: Sweep, folder: Path) -> Any:
    from vmsim.sweeps.driver import run_sweep
    from vmsim.sweeps.tables import read_points

    run_sweep(sweep, folder, jobs=1)
    return read_points(folder, sweep)


def test_a_refused_sweep_leaves_no_folder(tmp_path: Path) -> None:
    from vmsim.sweeps.driver import run_sweep

    with pytest.raises(InputError):
        run_sweep(of(MATRIX), tmp_path / "r", jobs=1)
    assert not (tmp_path / "r").exists()


def test_a_sample_is_bounded() -> None:
    ranges = "\n".join(f'"k{number}" = {{ low = 0, high = 1 }}' for number in range(20_000))
    with pytest.raises(InputError, match="1000"):
        of(f'[sample]\nkind = "sobol"\npoints = 1048576\n[sample.ranges]\n{ranges}\n')
    few = "\n".join(ranges.splitlines()[:32])
    with pytest.raises(InputError, match="are more than 16,777,216 values"):
        of(f'[sample]\nkind = "sobol"\npoints = 1048576\n[sample.ranges]\n{few}\n')
