"""Does `vmsim compare` run each mode, and say what is a what-if?"""

import json
from pathlib import Path

from vmsim.record.result import Result


def test_each_mode_runs_and_a_mode_the_cpu_lacks_is_called_a_what_if(vmsim, file: Path, tmp_path: Path) -> None:
    said = vmsim("compare", file, "--json", "--out", tmp_path / "all")
    assert said.status == 0
    told = json.loads(said.out)
    assert [row["mode"] for row in told["vms"]] == ["native", "native", "ept", "ept", "npt", "npt"]
    assert told["notes"] == ["npt on skylake-x: what-if (skylake-x has native and ept)"]
    for row in told["comparison"]["cycles_per_access"]:
        assert row["ept/native"] == row["ept"] / row["native"]
    for mode in ("native", "ept", "npt"):
        assert set(Result.load(tmp_path / "all" / mode).summary["mode"]) == {mode}
    figure = (tmp_path / "all" / "translation.png").read_bytes()
    assert figure.startswith(b"\x89PNG")
    assert vmsim("compare", file, "--out", tmp_path / "all").status == 2
    assert vmsim("compare", file, "--modes", "native", "--out", tmp_path / "all", "--force").status == 0
    assert not (tmp_path / "all" / "ept").exists()


def test_the_tables_name_modes_and_ratios(vmsim, file: Path) -> None:
    said = vmsim("compare", file, "--modes", "native,ept")
    assert said.status == 0
    assert "what-if" not in said.out
    assert said.out.count("ept/native") == 3


def test_modes_that_are_none_or_come_twice_are_refused(vmsim, file: Path) -> None:
    for modes, told in (("natve", "Did you mean 'native'?"), ("ept,ept", "at most once"), (",", "one at least")):
        said = vmsim("compare", file, "--modes", modes)
        assert (said.status, said.out) == (2, "")
        assert told in said.err
