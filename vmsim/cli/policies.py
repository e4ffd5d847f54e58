"""``vmsim policies``: how a host's memory may be given and taken, vmsim's own ways and those of other packages."""

from __future__ import annotations

from typing import Any, Final

import click

from vmsim.cli.screen import print_json, print_table

KEYS: Final = {
    "spares": ("host.spares",),
    "refills": ("host.pool.refill", "vm.pool.refill"),
    "victims": ("host.reclaim.policy", "host.swap.policy"),
    "lists": ("host.swap.policy",),
    "allotments": ("host.overcommit.policy",),
}
"""The keys of scenarios that name a policy, by what it chooses."""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """List the policies of a host's memory, and where each can be asked for.

    Other packages can bring more of them: see docs/extending/policy.md.
    """
    rows = list(_rows())
    if as_json:
        print_json({"policies": rows})
        return
    for chooses, keys in KEYS.items():
        print_table(
            " or ".join(keys),
            {"policy": "left", "what it does": "text", "its own keys": "left", "from": "left"},
            [
                [row["name"], row["about"], ", ".join(row["keys"]) or "-", row["package"]]
                for row in rows
                if row["chooses"] == chooses
            ],
        )


def _rows() -> Any:
    from vmsim import plugins
    from vmsim.scenario.daemons import policies

    for name, policy in policies().items():
        origin = plugins.origin("policies", name)
        yield {
            "name": name,
            "chooses": policy.chooses,
            "asked_for_by": list(KEYS.get(policy.chooses, ())),
            "about": policy.about,
            "keys": [f"host.{name}.{key}" for key in policy.table.model_fields] if policy.table else [],
            "package": f"{origin.package} {origin.version}" if origin else "vmsim",
        }
