"""The questions that `vmsim advise` answers."""

from __future__ import annotations

from typing import Final, NamedTuple

from vmsim.base.errors import InputError, nearest

__all__ = ["QUESTIONS", "Question", "question_named"]


class Question(NamedTuple):
    """What is said of a question before it is asked.

    Attributes
    ----------
    about : str
        What is answered.
    limit : str
        The limit that holds if none is given; empty: the question has none.
    limits : str
        What the limit is of.
    options : tuple of str
        Other options that the question takes.
    """

    about: str
    limit: str = ""
    limits: str = ""
    options: tuple[str, ...] = ()


# A module of vmsim.advice for each, of the same name.
QUESTIONS: Final = {
    "mode": Question("which paging mode takes the fewest cycles per access", options=("modes",)),
    "pool": Question(
        "the smallest page pool that keeps faults short",
        "1.5",
        "p99 and mean of faults, as multiples of those with a pool for all memory",
    ),
    "overcommit": Question(
        "how many of these VMs fit on the host", "1.5", "time per access, as a multiple of that alone on the host"
    ),
    "balloon": Question(
        "how far the balloons of these VMs may grow", "1.1", "time per access, as a multiple of that without a balloon"
    ),
    "reporting": Question(
        "which free blocks these VMs should report", "1.05", "time per access, as a multiple of that without reports"
    ),
    "migration": Question(
        "whether pre-copy migration converges",
        "300ms",
        "downtime, in which the rest is sent (QEMU's downtime-limit)",
        ("link",),
    ),
}


def question_named(name: str) -> Question:
    """Return a question.

    Raises
    ------
    InputError
        There is none of this name.
    """
    if name not in QUESTIONS:
        raise InputError(f"question: {name!r} is none. {nearest(name, QUESTIONS)}")
    return QUESTIONS[name]
