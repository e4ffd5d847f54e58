"""Does a shell complete commands, keys, values, presets, traces, modes and studies?"""

from __future__ import annotations

from typing import Any

import pytest
from click.shell_completion import BashComplete, ShellComplete

from vmsim.cli import VERBS, root
from vmsim.scenario import cpu_names, mode_names
from vmsim.validation.studies import STUDIES


def completed(*words: str) -> list[Any]:
    *before, incomplete = words
    return ShellComplete(root, {}, "vmsim", "_VMSIM_COMPLETE").get_completions(list(before), incomplete)


def words_of(*words: str) -> list[str]:
    return [item.value for item in completed(*words)]


def test_commands_and_options_are_completed() -> None:
    assert words_of("") == list(VERBS)
    assert words_of("co") == ["compare"]
    assert "--check" in words_of("run", "s.toml", "--ch")


@pytest.mark.parametrize("verb", ["run", "compare"])
def test_keys_are_completed_level_by_level_with_what_they_mean(verb: str) -> None:
    assert words_of(verb, "s.toml", "--set", "host.po")[0] == "host.pool."
    assert {"host.pool.min=", "host.pool.max=", "host.pool.batch="} <= {
        *words_of(verb, "s.toml", "--set", "host.pool.")
    }
    (item,) = completed(verb, "s.toml", "--set", "host.pool.mi")
    assert item.help.startswith("Free pages under which")
    assert "vm.workload." in words_of(verb, "s.toml", "--set", "vm.wo")
    assert {"vm.workload.kind=", "vm.workload.burst="} <= {*words_of(verb, "s.toml", "--set", "vm.workload.")}


def test_values_are_completed_where_there_are_only_some() -> None:
    assert {f"vm.mode={mode}" for mode in mode_names()} <= {*words_of("run", "s.toml", "--set", "vm.mode=")}
    assert words_of("run", "s.toml", "--set", "vm.mode=ep") == ["vm.mode=ept"]
    assert words_of("run", "s.toml", "--set", "host.what_if=") == ["host.what_if=true", "host.what_if=false"]
    assert words_of("run", "s.toml", "--set", "host.cpu=zen4") == ["host.cpu=zen4"]
    assert "vm.workload.kind=churn" in words_of("run", "s.toml", "--set", "vm.workload.kind=c")
    assert words_of("run", "s.toml", "--set", "host.pool.min=") == []
    assert words_of("run", "s.toml", "--set", "nothing.at.all=") == []


def test_presets_traces_modes_and_studies_are_completed() -> None:
    assert words_of("cpus", "") == list(cpu_names())
    assert words_of("explain", "ept", "--cpu", "skyl") == ["skylake-x"]
    assert "sqlite" in words_of("trace", "info", "sq")
    assert words_of("compare", "s.toml", "--modes", "native,e") == ["native,ept"]
    assert words_of("compare", "s.toml", "--modes", "native,n") == ["native,npt"]
    assert words_of("validate", "") == list(STUDIES)
    first = next(iter(STUDIES))
    assert first not in words_of("validate", first, "")
    assert words_of("plot", "run", "he") == ["heatmap"]


def test_what_bash_is_given_are_lines_of_type_and_word(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = BashComplete(root, {}, "vmsim", "_VMSIM_COMPLETE")
    monkeypatch.setenv("COMP_WORDS", "vmsim cpus zen")
    monkeypatch.setenv("COMP_CWORD", "2")
    assert "plain,zen4" in shell.complete().splitlines()
