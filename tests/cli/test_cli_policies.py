"""Does the list of policies have each, under the keys that take it?"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from vmsim.cli.policies import KEYS
from vmsim.scenario import Scenario
from vmsim.scenario.daemons import policies

VM = {"name": "a", "memory": "4MiB", "mode": "ept"}
WORKLOAD = {"kind": "uniform", "footprint": "1MiB", "accesses": 10}
NEEDED = {"host.reclaim.policy": {"reclaim": {"rate": 10}}, "host.swap.policy": {"swap": {"device": "nvme"}}}


def test_each_policy_is_there_with_what_it_does(vmsim: Callable[..., Any]) -> None:
    listed = json.loads(vmsim("policies", "--json").out)["policies"]
    assert [each["name"] for each in listed] == [*policies()]
    assert all(each["about"] for each in listed if each["package"] == "vmsim")
    screen = vmsim("policies").out
    assert all(each["name"] in screen for each in listed)
    assert "host.proportional.percent" in screen


@pytest.mark.parametrize("name", policies())
def test_each_is_taken_by_the_keys_that_are_said_to_take_it(name: str) -> None:
    for key in KEYS[policies()[name].chooses]:
        room, *rest = key.split(".")
        table: dict[str, Any] = NEEDED.get(key, {})
        if key == "host.overcommit.policy":
            balloon = {"max": "1MiB", "statistics": "1s"} if name != "none" else {}
            host = {"memory": "64MiB", "overcommit": {"policy": name}}
            given = {**VM, "workload": WORKLOAD, "balloon": balloon}
            assert Scenario.model_validate({"host": host, "vm": [given]}).vms[0].name == "a"
            continue
        host = {"memory": "64MiB", **{room: dict(each) for room, each in table.items()}}
        vm = {**VM, "workload": WORKLOAD}
        target: Any = vm if room == "vm" else host
        for part in rest[:-1]:
            target = target.setdefault(part, {})
        target[rest[-1]] = name
        assert Scenario.model_validate({"host": host, "vm": [vm]}).vms[0].name == "a"
