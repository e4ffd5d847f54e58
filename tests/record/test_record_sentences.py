"""Does the line about first touches say what share of the cycles they are?"""

from vmsim.base.errors import listed
from vmsim.record.sentences import first_touches


def row(group: str, first: int, total: int, mode: str = "ept") -> dict[str, object]:
    return {"vm_group": group, "mode": mode, "first_touch_cycles": first, "total_cycles": total}


def test_vms_of_one_group_count_together_and_the_largest_share_comes_first() -> None:
    rows = [row("db", 10, 100), row("db", 30, 100), row("cache", 57, 100)]
    assert first_touches(rows, warmed=False) == (
        "57 % of cache's cycles and 20 % of db's cycles are first touches; "
        'warmup = "50%" leaves out those of the first half.'
    )


def test_after_a_warm_up_it_says_so() -> None:
    assert first_touches([row("db", 3, 100)], warmed=True) == (
        "3 % of db's cycles after the warm-up are first touches; a longer warmup leaves more of them out."
    )


def test_modes_give_a_range() -> None:
    rows = [row("db", 41, 100), row("db", 63, 100, "shadow")]
    assert first_touches(rows, warmed=False).startswith("41 to 63 % of db's cycles are first touches")


def test_where_they_are_hardly_any_it_says_that() -> None:
    assert first_touches([row("db", 1, 1000)], warmed=False) == "Of every VM's cycles less than 1 % are first touches."
    assert first_touches([row("db", 0, 0)], warmed=False) == "Of every VM's cycles less than 1 % are first touches."


def test_of_many_groups_three_are_named() -> None:
    rows = [row(f"vm{share}", share, 100) for share in (10, 20, 30, 40, 50)]
    assert first_touches(rows, warmed=False).startswith(
        "50 % of vm50's cycles, 40 % of vm40's cycles, 30 % of vm30's cycles and at most 20 % of the others' are"
    )


def test_a_list_in_a_sentence() -> None:
    assert [listed(parts) for parts in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]
