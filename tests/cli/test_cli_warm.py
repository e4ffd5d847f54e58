"""Does `vmsim warm` compile what it is asked to?"""

import json


def test_each_cpu_named_is_compiled_once(vmsim) -> None:
    said = vmsim("warm", "--cpu", "skylake-x", "--cpu", "skylake-x", "--json")
    assert said.status == 0
    assert [each["cpu"] for each in json.loads(said.out)["cpus"]] == ["skylake-x"]


def test_an_unknown_cpu_is_refused_before_anything_is_compiled(vmsim) -> None:
    said = vmsim("warm", "--cpu", "skylake-x", "--cpu", "skylak")
    assert (said.status, said.out) == (2, "")
    assert "skylake-x" in said.err


def test_an_unknown_study_gets_the_nearest(vmsim) -> None:
    said = vmsim("validate", "gusp")
    assert (said.status, said.out) == (2, "")
    assert "'gups'" in said.err
