"""``vmsim advise``: answer a question from simulation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from vmsim.advice.questions import QUESTIONS, question_named
from vmsim.base.errors import InputError
from vmsim.cli.completing import modes as modes_completion
from vmsim.cli.completing import questions as questions_completion
from vmsim.cli.completing import settings as settings_completion

if TYPE_CHECKING:
    from vmsim.advice.result import Advice

_FILE = click.Path(path_type=Path)
_NAMES: Final = {"mode": 1, "pool": 3, "migration": 1}
_SHOWN: Final = 12
_HEADINGS: Final = {
    "cycles_per_access": "cycles per access",
    "more_low": "from",
    "more_high": "to",
    "fault_p99_cycles": "p99 fault",
    "pool_wait_cycles": "pool wait",
    "vm_group": "VM",
    "vms": "VMs",
    "memory": "of memory",
    "interval_ms": "every ms",
    "dirty_pages": "dirty pages",
    "mib_per_s": "MiB/s",
    "of_link": "of link",
}


@click.command()
@click.argument("question", required=False, metavar="[QUESTION]", shell_complete=questions_completion)
@click.argument("file", required=False, type=_FILE, metavar="[FILE]")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    shell_complete=settings_completion,
    help="Change a key: host.pool.min=128.",
)
@click.option("--list", "listed", is_flag=True, help="List the questions and their limits.")
@click.option("--limit", metavar="LIMIT", help="What may be lost: 1.5 times; of a migration 300ms.")
@click.option("--seeds", type=click.IntRange(2, 1000), default=5, show_default=True, help="Simulations of each point.")
@click.option("--modes", metavar="MODES", shell_complete=modes_completion, help="mode: which ones.")
@click.option("--link", metavar="RATE", help="migration: what the link carries, 128MiB/s if left out.")
@click.option("--out", type=_FILE, metavar="DIR", help="Where the runs are kept; FILE.QUESTION.advice if left out.")
@click.option("--jobs", type=click.IntRange(1, 4096), metavar="N", help="Processes; all cores if left out.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    question: str | None,
    file: Path | None,
    settings: tuple[str, ...],
    listed: bool,
    limit: str | None,
    seeds: int,
    modes: str | None,
    link: str | None,
    out: Path | None,
    jobs: int | None,
    as_json: bool,
) -> int:
    """Answer a question about a scenario from simulation.

    QUESTION is one of those that --list prints; FILE is a scenario in TOML. The points that the answer stands on are
    kept in DIR: the same command goes on where it was interrupted.
    """
    if listed:
        _list(as_json)
        return 0
    if question is None:
        raise InputError(f"QUESTION: this is missing; expected {', '.join(QUESTIONS)} (vmsim advise --list).")
    question_named(question)
    if file is None:
        raise InputError(f"FILE: this is missing; expected a scenario: vmsim advise {question} scenario.toml.")

    from vmsim.advice.api import advise, folder_for
    from vmsim.cli.sweep_screen import listening
    from vmsim.scenario import Scenario, parse_settings

    scenario = Scenario.load(file, parse_settings(settings))
    with listening(as_json=False) as listener:
        found = advise(
            question,
            scenario,
            limit=limit,
            seeds=seeds,
            out=out or folder_for(question, file),
            jobs=jobs,
            progress=listener,
            modes=[each.strip() for each in modes.split(",")] if modes is not None else None,
            link=link,
        )
    if as_json:
        _print_json(found, seeds)
    else:
        _print(found)
    return 0


def _print(found: Advice) -> None:
    from vmsim.cli.screen import print_frame, say

    say(f"{found.answer}\n")
    shown = found.table.head(_SHOWN).copy()
    for column in shown.select_dtypes("bool"):
        shown[column] = shown[column].map({True: "yes", False: "no"})
    for column in shown.select_dtypes("number"):
        shown[column] = shown[column].replace(float("inf"), float("nan"))
    print_frame("", shown, left=_NAMES.get(found.question, 1), headings=_HEADINGS)
    if len(found.table) > _SHOWN:
        say(f"… and {len(found.table) - _SHOWN} more, in the table of --json.\n")
    for note in found.notes:
        say(note)
    say(f"The runs are in {found.sweep}.")


def _print_json(found: Advice, seeds: int) -> None:
    from vmsim.cli.screen import print_json, rows_of

    table = found.table.replace(float("inf"), float("nan"))
    facts: dict[str, Any] = {key: None if value == float("inf") else value for key, value in found.facts.items()}
    print_json(
        {
            "question": found.question,
            "answer": found.answer,
            "facts": facts,
            "level": found.level,
            "seeds": seeds,
            "table": rows_of(table),
            "notes": list(found.notes),
            "sweep": str(found.sweep),
        }
    )


def _list(as_json: bool) -> None:
    from vmsim.cli.screen import print_json, print_table

    if as_json:
        print_json({"questions": [{"name": name, **each._asdict()} for name, each in QUESTIONS.items()]})
        return
    rows = [[name, each.about, each.limit or "–", each.limits or "–"] for name, each in QUESTIONS.items()]
    print_table("Questions", {"question": "left", "what is answered": "text", "limit": "left", "of": "text"}, rows)
