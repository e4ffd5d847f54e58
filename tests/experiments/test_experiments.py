"""Are tables and figures of the experiments those of their sweeps, and made again only when something has changed?"""

import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

import experiments.__main__ as command
from experiments.__main__ import experiments
from vmsim.base.errors import InputError
from vmsim.sweeps.experiment import Experiment

NAMES = [*experiments()]
AGAIN = "run: rm -r runs/{0}; python experiments/{0}/figure.py"
SWEEP = """
[base.host]
memory = "64MiB"
[[base.vm]]
name = "vm"
memory = "8MiB"
mode = "ept"
workload = { kind = "sequential", footprint = "1MiB", accesses = 512, stride = "4KiB" }
[axes]
"host.pool.batch" = [64, 128]
"""
FIGURE = """
from pathlib import Path
from vmsim.sweeps.experiment import Experiment
EXPERIMENT = Experiment(Path(__file__).parent, "exits", height=1.5)
def data():
    return EXPERIMENT.table()["exits"]
def draw(exits, ax):
    ax.plot(exits)
"""


def refresh(experiment: Experiment, *, all_: bool = False) -> str:
    return command.refresh(experiment, all_=all_, jobs=1)


@pytest.mark.parametrize("name", NAMES)
def test_the_table_is_that_of_the_sweep_and_the_figure_that_of_the_table(name: str) -> None:
    experiment = experiments()[name]
    assert experiment.is_run(), AGAIN.format(name)
    assert experiment.is_drawn(), "run: make figures"


@pytest.mark.parametrize(
    ("name", "first", "step"),
    [
        ("ad-bits", 5, 31),
        ("first-light", 3, 4),
        ("footprint", 1, 50),
        ("horizon", 7, 60),
        ("fill-chunk", 3, 29),
        ("ksm", 8, 20),
        ("traps", 5, 6),
        ("lazy-eager", 3, 28),
        ("cr3", 2, 19),
        ("tags", 1, 23),
        ("software-tlb", 4, 9),
        ("crossover", 72, 48),
        ("pool", 5, 60),
        ("paired", 22, 60),
    ],
)
def test_points_simulated_again_give_the_rows_that_the_table_has(name: str, first: int, step: int) -> None:
    from vmsim.engine.run import simulate
    from vmsim.record.result import Result
    from vmsim.record.tables import TABLES

    experiment = experiments()[name]
    table = experiment.table().set_index("point")
    points = [*islice(experiment.sweep.points(), first, None, step)]
    assert points
    for point in points:
        made = Result(point.scenario, simulate(point.scenario)).summary.astype(object)
        found = table.loc[[point.identity], [*TABLES["summary"][0]]].reset_index(drop=True).astype(object)
        pd.testing.assert_frame_equal(made, found, obj=f"{name}, {point.values}; {AGAIN.format(name)}")


def write(root: Path) -> Experiment:
    folder = root / "experiments" / "exits"
    folder.mkdir(parents=True)
    (folder / "sweep.toml").write_text(SWEEP)
    (folder / "figure.py").write_text(FIGURE)
    return Experiment(folder)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    assert refresh(write(root)) == "simulated and drawn"
    return root


@pytest.fixture
def experiment(made: Path, tmp_path: Path) -> Experiment:
    """Give one that is up to date."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return Experiment(tmp_path / "experiments" / "exits")


def test_without_a_table_there_is_nothing_to_draw(tmp_path: Path) -> None:
    experiment = write(tmp_path)
    with pytest.raises(InputError, match="no such table"):
        experiment.table()
    assert not experiment.is_run()
    assert not experiment.is_drawn()


def test_only_what_is_out_of_date_is_made_again(experiment: Experiment) -> None:
    assert refresh(experiment) == "up to date"
    assert [len(experiment.table()), experiment.is_run(), experiment.is_drawn()] == [2, True, True]
    before = experiment.file.read_bytes(), (experiment.results / "exits.png").read_bytes()

    (experiment.results / "exits.pdf").unlink()
    assert refresh(experiment) == "drawn"
    (experiment.folder / "figure.py").write_text(FIGURE + "# other\n")
    assert refresh(experiment) == "drawn"
    assert refresh(experiment) == "up to date"
    assert refresh(experiment, all_=True) == "drawn"
    (experiment.results / "figure.json").write_text("[]")
    assert refresh(experiment) == "drawn"
    assert before == (experiment.file.read_bytes(), (experiment.results / "exits.png").read_bytes())


def test_a_clone_without_the_store_simulates_nothing(experiment: Experiment) -> None:
    shutil.rmtree(experiment.store)
    fresh = Experiment(experiment.folder)
    (experiment.results / "exits.png").unlink()
    assert refresh(fresh) == "drawn"
    assert not experiment.store.exists()


def test_a_changed_sweep_runs_only_its_new_points(experiment: Experiment) -> None:
    old = experiment.table()
    (experiment.folder / "sweep.toml").write_text(SWEEP.replace("[64, 128]", "[128, 256]"))
    changed = Experiment(experiment.folder)
    assert not changed.is_run()
    events: list[dict[str, object]] = []
    table = changed.run(jobs=1, listener=events.append)
    assert len([event for event in events if event["event"] == "done"]) == 1
    assert table["host.pool.batch"].tolist() == [128, 256]
    assert table["point"][0] == old["point"][1]
    assert refresh(Experiment(experiment.folder)) == "drawn"


def test_another_part_has_a_table_of_its_own_that_is_kept_up_to_date_too(experiment: Experiment) -> None:
    (experiment.folder / "sweep-long.toml").write_text(SWEEP.replace('"host.pool.batch" = [64, 128]', "seed = [2, 3]"))
    larger = Experiment(experiment.folder)
    assert not larger.is_run()
    assert refresh(larger) == "simulated and drawn"
    assert refresh(larger) == "up to date"
    assert larger.table("long")["seed"].tolist() == [2, 3]
    assert larger.table()["host.pool.batch"].tolist() == [64, 128]
    (larger.results / "table-long.csv").unlink()
    assert refresh(larger) == "simulated and drawn"


def test_a_point_that_fails_leaves_the_table_as_it_was(experiment: Experiment) -> None:
    before = experiment.file.read_bytes()
    large = SWEEP.replace('memory = "64MiB"', 'memory = "4MiB"').replace("1MiB", "7MiB").replace("512", "1792")
    (experiment.folder / "sweep.toml").write_text(large)
    with pytest.raises(InputError, match="did not run to its end"):
        Experiment(experiment.folder).run(jobs=1)
    assert experiment.file.read_bytes() == before


@pytest.mark.parametrize("name", NAMES)
def test_each_figure_has_its_parts(name: str, figure_of: Callable[[str], SimpleNamespace]) -> None:
    assert {"EXPERIMENT", "data", "draw"} <= vars(figure_of(name)).keys()
