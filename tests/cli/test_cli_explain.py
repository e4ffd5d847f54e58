"""Does `vmsim explain` show the references that the literature counts?"""

import csv
import json
from itertools import product
from pathlib import Path

import pytest

import vmsim as package

PAGES = {1: "4K", 2: "2M", 3: "1G"}
KEYS = ("guest_levels", "nested_levels", "guest_leaf_level", "nested_leaf_level", "references")
COUNTS = Path(package.__file__).parent / "validation" / "data" / "reference_counts.csv"


def published() -> list[tuple[int, int, int, int, int]]:
    with COUNTS.open() as file:
        rows = [row for row in csv.DictReader(file) if not row["case"].startswith("agile")]
    numbers = [tuple(int(row[key] or 0) for key in KEYS) for row in rows]
    return [row for row in numbers if row[0] > 2]  # walk caches serve some of those of two levels: see below


def asked(guest: int, nested: int, guest_leaf: int, nested_leaf: int) -> list[str]:
    words = ["explain", "--json", "--guest-levels", str(guest), "--guest-page", PAGES[guest_leaf]]
    if not nested:
        return [*words, "--mode", "native"]
    mode = "npt" if guest == 3 else "ept"  # PAE walked; EPT has its first level in registers
    return [*words, "--mode", mode, "--host-levels", str(nested), "--host-page", PAGES[nested_leaf]]


@pytest.mark.parametrize("row", published())
def test_cold_references_are_those_published(row: tuple[int, int, int, int, int], vmsim) -> None:
    *shape, references = row
    told = json.loads(vmsim(*asked(*shape)).out)
    assert told["count"] == told["cold"]["count"] == len(told["references"]) == references
    assert {each["served"] for each in told["references"]} <= {"DRAM", "LLC", "L2", "L1"}


@pytest.mark.parametrize(("mode", "cpu"), [("ept", "skylake-x"), ("npt", "zen4")])
def test_a_walk_goes_down_the_nested_tables_before_each_guest_entry(mode: str, cpu: str, vmsim) -> None:
    told = json.loads(vmsim("explain", "--mode", mode, "--json").out)
    expected = [(guest, nested) for guest in (4, 3, 2, 1) for nested in (4, 3, 2, 1, 0)]
    expected += [(0, nested) for nested in (4, 3, 2, 1)]
    assert [(each["guest_level"], each["nested_level"]) for each in told["references"]] == expected
    assert [each["position"] for each in told["references"]] == list(range(1, 25))
    assert (told["cpu"], told["what_if"]) == (cpu, False)
    assert len({each["hpa"] for each in told["references"]}) == 24


@pytest.mark.parametrize(
    ("mode", "host", "guest_levels"),
    [("ept", 4, 2), ("ept", 5, 2), ("npt", 3, 3), ("npt", 4, 3), ("npt", 5, 3), ("native", 0, 2)],
)
def test_a_pae_guest_has_its_first_level_in_registers_but_for_npt(mode, host, guest_levels, vmsim) -> None:
    hosts = ("--host-levels", str(host)) if host else ()
    told = json.loads(vmsim("explain", "--json", "--mode", mode, "--guest-levels", 3, *hosts).out)
    assert told["count"] == (guest_levels + 1) * (host + 1) - 1
    assert {each["guest_level"] for each in told["references"] if not each["nested_level"]} == {1, 2, guest_levels}
    assert told["what_if"] == (mode == "ept" and host == 5)  # which skylake-x lacks; PAE all CPUs have


@pytest.mark.parametrize("host", [2, 3, 4, 5])
@pytest.mark.parametrize(("page", "guest"), [("4K", 2), ("4M", 1)])
def test_a_guest_of_two_levels_makes_the_references_of_two(host: int, page: str, guest: int, vmsim) -> None:
    """Less what the cache of PML4Es saves: one serves all of its 4 GiB, so only the first nested walk reads it."""
    asked = "--mode", "npt", "--guest-levels", 2, "--guest-page", page, "--host-levels", host, "--cpu", "yardstick"
    told = json.loads(vmsim("explain", "--json", *asked).out)
    upper = max(host - 3, 0)
    assert told["count"] == (guest + 1) * (host + 1) - 1 - guest * upper
    assert told["pwc_hits"] == guest * (upper > 0)
    reads = [each["reads"] for each in told["references"] if not each["nested_level"]]
    assert reads == ["gL2 entry (PDE)", "gL1 entry (PTE)"][:guest]
    warm = told["warm"]["references"]
    assert [each["reads"] for each in warm if not each["nested_level"]] == reads[-1:]


@pytest.mark.parametrize(
    ("asked", "count", "published"),
    [
        (("--mode", "ept"), 12, 14),
        (("--mode", "npt"), 12, 14),
        (("--mode", "ept", "--host-levels", 5), 13, 17),  # PML5E and PML4E are shared: 2 x 2
        (("--mode", "ept", "--host-page", "2M"), 9, 11),
        (("--mode", "ept", "--guest-page", "4M"), 8, 9),
    ],
)
def test_a_walk_shorter_than_published_says_why(asked, count: int, published: int, vmsim) -> None:
    """(2 + 1)(4 + 1) - 1 = 14 of 32-bit guests (SDM vol. 3A 5.3); the nested PML4E is in a walk cache twice."""
    told = json.loads(vmsim("explain", "--json", "--guest-levels", 2, *asked).out)
    assert (told["count"], told["without_walk_caches"]) == (count, published)
    assert f"makes {published} references" in told["note"]
    assert told["note"] in vmsim("explain", "--guest-levels", 2, *asked).out.replace("\n", " ")


@pytest.mark.parametrize("row", published())
def test_a_walk_of_the_published_length_needs_no_word(row: tuple[int, int, int, int, int], vmsim) -> None:
    *shape, references = row
    told = json.loads(vmsim(*asked(*shape)).out)
    assert (told["without_walk_caches"], told["note"]) == (references, None)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (("--mode", "ept", "--host-levels", 3), "mode ept has no nested tables of 3 levels"),
        (("--mode", "npt", "--host-levels", 3), "expected 3 of both"),
        (("--mode", "npt", "--guest-levels", 3, "--guest-page", "1G"), "expected 4K or 2M"),
        (("--mode", "agile", "--guest-levels", 3, "--switch", 4), "levels 1 to 2. Expected one of them, 0 for none"),
        (("--guest-levels", 2, "--guest-page", "2M"), "guest page: 32-bit paging"),
        (("--guest-levels", 2, "--guest-page", "1G"), "expected 4K or 4M"),
        (("--guest-page", "4M"), "expected 4K, 2M or 1G"),
        (("--mode", "agile", "--guest-levels", 2), "expected 3, 4 or 5"),
        (("--mode", "ept", "--guest-levels", 2, "--host-levels", 2), "only npt has"),
        (("--mode", "npt", "--guest-levels", 3, "--host-levels", 2), "expected 2 of both"),
    ],
)
def test_what_32_bit_tables_cannot_do_is_said(asked, words, vmsim) -> None:
    told = vmsim("explain", *asked)
    assert told.status == 2
    assert words in told.err


@pytest.mark.parametrize(("guest", "host"), list(product(PAGES.values(), PAGES.values())))
def test_every_level_that_a_large_page_saves_is_saved(guest: str, host: str, vmsim) -> None:
    told = json.loads(vmsim("explain", "--json", "--guest-page", guest, "--host-page", host).out)
    levels = {"4K": 4, "2M": 3, "1G": 2}
    assert told["count"] == (levels[guest] + 1) * (levels[host] + 1) - 1


@pytest.mark.parametrize(("switch", "references"), list(enumerate((4, 8, 12, 16, 20, 24))))
def test_an_agile_walk_makes_four_references_more_for_each_nested_level(switch: int, references: int, vmsim) -> None:
    told = json.loads(vmsim("explain", "--mode", "agile", "--switch", switch, "--json").out)
    assert (told["count"], told["switch"], told["what_if"]) == (references, switch, True)
    assert told["without_walk_caches"] == references
    reads = [each["reads"] for each in told["references"]]
    assert [read[:3] for read in reads if read[0] == "s"] == [f"sL{level}" for level in range(4, switch, -1)]
    assert [read[:3] for read in reads if read[0] == "g"] == [f"gL{level}" for level in range(min(switch, 4), 0, -1)]


@pytest.mark.parametrize(
    ("guest", "host", "switch", "references"), [("2M", "2M", 0, 3), ("2M", "4K", 0, 4), ("2M", "2M", 2, 6)]
)
def test_an_agile_walk_of_a_large_page_is_shorter(guest: str, host: str, switch: int, references: int, vmsim) -> None:
    pages = ("--guest-page", guest, "--host-page", host)
    told = json.loads(vmsim("explain", "--mode", "agile", *pages, "--switch", switch, "--json").out)
    assert told["count"] == references


def test_a_walk_switches_at_a_level_that_there_is(vmsim) -> None:
    for words in (("--switch", "6"), ("--switch", "-1"), ("--switch", "1", "--guest-page", "2M")):
        said = vmsim("explain", "--mode", "agile", *words)
        assert (said.status, said.out) == (2, "")
        assert "switch: found" in said.err
    assert "--switch" in vmsim("explain", "--switch", "1").err


def test_the_warm_walk_reads_only_what_no_cache_of_the_walker_holds(vmsim) -> None:
    told = json.loads(vmsim("explain", "--json").out)
    warm = told["warm"]
    assert [(each["guest_level"], each["nested_level"]) for each in warm["references"]] == [(1, 0)]
    assert (warm["count"], warm["pwc_hits"], warm["ntlb_hits"]) == (1, 1, 1)
    assert warm["cycles"] < told["cold"]["cycles"]
    assert told["cold"]["cycles"] == sum(each["cycles"] for each in told["references"])


def test_look_ups_that_the_pwc_serves_are_shown_but_are_no_references(vmsim) -> None:
    warm = json.loads(vmsim("explain", "--mode", "npt", "--json").out)["warm"]
    served = [each["served"] for each in warm["references"]]
    assert served.count("PWC") == len(served) - warm["count"] > 0


def test_the_table_numbers_the_references(vmsim) -> None:
    said = vmsim("explain", "--mode", "native", "--guest-levels", "5")
    assert "what-if: skylake-x cannot do this" in said.out
    assert "5 references" in said.out
    assert "1 reference," in said.out
    assert "L5 entry (PML5E)" in said.out


def test_native_walks_have_no_host_page(vmsim) -> None:
    said = vmsim("explain", "--mode", "native", "--host-page", "2M")
    assert (said.status, said.out) == (2, "")
    assert "--host-page" in said.err


SHAPES = [
    *(
        ("native", levels, None, page, None)
        for levels in (2, 3, 4, 5)
        for page in ("4K", "4M" if levels == 2 else "2M")
    ),
    *(
        (mode, guest, host, page, host_page)
        for mode in ("ept", "npt")
        for guest, page in ((2, "4K"), (3, "2M"), (4, "4K"), (4, "1G"), (5, "2M"))
        for host, host_page in ((4, "4K"), (4, "2M"), (5, "1G"))
    ),
    ("npt", 3, 3, "4K", "2M"),
    ("npt", 2, 2, "4K", "4M"),
    ("agile", 4, 4, "4K", "4K"),
]


@pytest.mark.parametrize("cpu", ["skylake-x", "zen4", "yardstick"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "-".join(map(str, shape)))
def test_the_rows_of_a_walk_add_up_to_its_cycles(cpu: str, shape: tuple, vmsim) -> None:
    mode, guest, host, page, host_page = shape
    words = ["explain", "--json", "--mode", mode, "--cpu", cpu, "--guest-levels", guest, "--guest-page", page]
    if host:
        words += ["--host-levels", host, "--host-page", host_page]
    told = json.loads(vmsim(*words).out)
    for walk in (told["cold"], told["warm"]):
        assert sum(row["cycles"] for row in (*walk["references"], *walk["extras"])) == walk["cycles"]
        looks = {row["kind"]: row["count"] for row in walk["extras"]}
        assert walk["ntlb_hits"] <= looks.get("nested TLB look-up", walk["ntlb_hits"])


@pytest.mark.parametrize(("switch", "references"), [(0, 2), (1, 6), (2, 10), (3, 14)])
def test_an_agile_walk_of_a_pae_guest_has_two_levels(switch: int, references: int, vmsim) -> None:
    """Two entries of the shadow or the guest, and four nested ones for each that lies past the switch, by hand.

    Its PDPTEs are in registers, so that nested paging proper takes (2 + 1)(4 + 1) - 1 references.
    """
    told = json.loads(vmsim("explain", "--json", "--mode", "agile", "--guest-levels", 3, "--switch", switch).out)
    assert (told["cold"]["count"], told["without_walk_caches"]) == (references, references)


@pytest.mark.parametrize("switch", range(6))
def test_the_rows_of_an_agile_walk_add_up_to_its_cycles(switch: int, vmsim) -> None:
    told = json.loads(vmsim("explain", "--json", "--mode", "agile", "--switch", switch).out)
    for walk in (told["cold"], told["warm"]):
        assert sum(row["cycles"] for row in (*walk["references"], *walk["extras"])) == walk["cycles"]


def test_a_printed_walk_shows_what_is_no_reference(vmsim) -> None:
    """zen4: 24 references to DRAM at 340 cycles are 8,160, and five look-ups of the nested TLB at 2 the other 10."""
    out = vmsim("explain", "--mode", "npt").out
    assert "24 references, 8,170 cycles" in out
    assert "5 nested TLB look-ups" in out


@pytest.mark.parametrize(
    ("word", "hint"), [("EPTT", "Did you mean 'ept'?"), ("hdd", "expected 'native', 'ept', 'npt' or 'agile'\n")]
)
def test_a_word_that_is_no_choice_is_answered_with_the_nearest(word: str, hint: str, vmsim) -> None:
    said = vmsim("explain", "--mode", word)
    assert said.status == 2
    assert f"found '{word}', expected 'native', 'ept', 'npt' or 'agile'" in said.err
    assert hint in said.err


def test_choices_are_taken_in_upper_case_too(vmsim) -> None:
    assert vmsim("explain", "--mode", "EPT", "--guest-page", "2m").out == vmsim("explain", "--guest-page", "2M").out
