"""Does each event make a core forget what the manuals say, and no more, whatever tells address spaces apart?"""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.oracle.tags import NESTED, PAGE, TABLE, Twin, Vm
from vmsim.machine.layout import Geometry, Unit, make_cores, make_vm
from vmsim.machine.tags import Tags
from vmsim.machine.tlb import ASID_SHIFT

ROOM = 256  # nothing is ever evicted
ONE = Unit(1, 1)
ROOMY = Geometry(
    l1_tlb=[ONE],
    l2_tlb=[Unit(1, ROOM)],
    l1=ONE,
    l2=ONE,
    llc=ONE,
    pwc={"pde": Unit(1, ROOM)},
    ntlb=Unit(1, ROOM),
)
UNITS = {PAGE: "l2_tlb0", TABLE: "pde", NESTED: "ntlb"}
SHIFTS = {PAGE: 12, TABLE: 21, NESTED: 12}


class Both:
    """Machine and twin, and the VMs' registers."""

    def __init__(self, vms: list[Vm], *, cores: int = 1, limit: int = 100, amd: bool = False) -> None:
        self.cores = make_cores(ROOMY, cores)
        self.tags = Tags(self.cores, limit=limit, amd=amd)
        self.twin = Twin(vms, limit=limit, amd=amd)
        self.registers = [make_vm() for _ in vms]
        self.spaces = [
            self.tags.spaces(registers, vm, tags=vms[vm].tags, apart=vms[vm].apart)
            for vm, registers in enumerate(self.registers)
        ]

    def _tag(self, vm: int, kind: str, address: int) -> int:
        registers = self.registers[vm][0]
        key = address >> SHIFTS[kind] << (2 if kind == PAGE else 0)
        return int(registers.nested_asid if kind == NESTED else registers.asid) | key

    def touch(self, vm: int, kind: str, address: int) -> None:
        """Let the core that a VM is on keep something."""
        address = address >> SHIFTS[kind] << SHIFTS[kind]
        if (kind, address) not in self.twin.visible(vm):
            self.twin.keep(vm, kind, address)
            ways = self.cores[UNITS[kind]]["tag"][self.twin.where[vm], 0]
            ways[list(ways).index(-1)] = self._tag(vm, kind, address)

    def visible(self, vm: int) -> set[tuple[str, int]]:
        """Return what an access of the VM could hit."""
        found = set()
        for kind, unit in UNITS.items():
            tags = self.cores[unit]["tag"][self.twin.where[vm], 0].tolist()
            asid = self._tag(vm, kind, 0) >> ASID_SHIFT
            for tag in tags:
                if tag >> ASID_SHIFT == asid and tag >= 0:
                    key = (tag & (1 << ASID_SHIFT) - 1) >> (2 if kind == PAGE else 0)
                    found.add((kind, key << SHIFTS[kind]))
        return found

    def do(self, what: str, vm: int, *arguments: Any) -> None:
        """Let one thing happen to both, and compare what every VM that runs could hit."""
        getattr(self.twin, what)(vm, *arguments)
        if what == "load":
            self.spaces[vm].load(arguments[0], keep=arguments[1])
        elif what == "invalidate":
            space, first, last = arguments
            self.spaces[vm].invalidate(first, last, space)
        else:
            getattr(self.spaces[vm], what)(*arguments)
        self.compare()

    def compare(self) -> None:
        for vm in self.twin.where:
            assert self.visible(vm) == self.twin.visible(vm)


KINDS = [
    Vm(tags, apart)
    for tags in ("none", "vpid", "asid", None)
    for apart in (None, "pcid", "tag")
    if apart != "tag" or tags in ("vpid", "asid")
]


@given(
    seed=st.integers(0, 1 << 32),
    vms=st.lists(st.sampled_from(KINDS), min_size=1, max_size=4),
    cores=st.integers(1, 3),
    limit=st.integers(1, 4),
    amd=st.booleans(),
    steps=st.integers(1, 80),
)
def test_what_a_core_forgets_is_what_the_twin_forgets(seed, vms, cores, limit, amd, steps):
    random = Random(seed)
    both = Both(vms, cores=cores, limit=limit, amd=amd)
    for _ in range(steps):
        vm = random.randrange(len(vms))
        space = random.randrange(3) if vms[vm].apart else 0
        address = random.randrange(4) << random.choice([12, 21])
        what = random.choice(
            ["touch"] * 4 + ["load"] * 3 + ["invalidate", "flush", "flush_all", "flush_nested", "release"]
        )
        if random.random() < 0.4:
            what = "leave" if vm in both.twin.where else "enter"
        idle = [core for core in range(cores) if core not in both.twin.where.values()]
        if what == "enter":
            if idle:
                both.do("enter", vm, random.choice(idle))
        elif what == "touch":
            if vm in both.twin.where:
                both.touch(vm, random.choice([PAGE, PAGE, TABLE, NESTED]), address)
                both.compare()
                if random.random() < 0.3:
                    both.do("exited", vm)
        elif what == "load":
            both.do("load", vm, space, random.random() < 0.6)
        elif what == "invalidate":
            both.do("invalidate", vm, space, address, address + random.choice([0, 4095, 4096, 1 << 21]))
        elif what in ("flush", "release"):
            both.do(what, vm, space)
        else:
            both.do(what, vm)


def warm(vms: list[Vm], **options: Any) -> Both:
    """Return VMs that have run on core 0 one after the other, each leaving a page, a table and a nested entry."""
    both = Both(vms, **options)
    for vm in range(len(vms)):
        both.do("enter", vm, 0)
        for kind in UNITS:
            both.touch(vm, kind, 5 << 21)
        both.do("leave", vm)
    return both


ALL = {(kind, 5 << 21) for kind in UNITS}
BY_GPA = {(NESTED, 5 << 21)}


@pytest.mark.parametrize(
    ("vms", "amd", "left"),
    [
        ([Vm("none", None)], False, BY_GPA),  # VPID 0: exit and entry flush it, but not what is kept by gpa
        ([Vm("none", None)], True, set()),  # TLB_CONTROL 1
        ([Vm("vpid", None), Vm("vpid", None)], False, ALL),
        ([Vm("asid", None), Vm("asid", None)], True, ALL),
        ([Vm("vpid", None), Vm("none", None)], False, ALL),  # VPID 0 is not its own
        ([Vm("asid", None), Vm("none", None)], True, set()),
        ([Vm(None, "pcid"), Vm(None, "pcid")], False, ALL),  # two programs with a PCID each
        ([Vm(None, None), Vm(None, None)], False, BY_GPA),  # two programs without: each CR3 load flushes
        ([Vm(None, None), Vm("vpid", None)], False, BY_GPA),
        ([Vm(None, "pcid"), Vm("vpid", None)], False, ALL),
        ([Vm(None, "pcid"), Vm("none", None)], False, BY_GPA),  # the VM's entry flushes VPID 0, all PCIDs
    ],
)
def test_what_is_left_of_a_vm_when_it_comes_back(vms, amd, left):
    both = warm(vms, amd=amd)
    both.do("enter", 0, 0)
    assert both.visible(0) == left


@pytest.mark.parametrize(("amd", "left"), [(False, BY_GPA), (True, set())])
def test_a_core_out_of_tags_flushes_and_begins_again(amd, left):
    three = [Vm("asid" if amd else "vpid", None)] * 3
    enough = warm(three, limit=3, amd=amd)
    enough.do("enter", 0, 0)
    assert enough.visible(0) == ALL
    assert enough.tags.rollovers == 0
    scarce = warm(three, limit=2, amd=amd)  # the third took all tags back
    scarce.do("enter", 0, 0)
    assert scarce.visible(0) == left
    assert scarce.tags.rollovers == 1
    scarce.do("leave", 0)
    scarce.do("enter", 2, 0)  # the third and the first have the two tags
    assert scarce.visible(2) == ALL
    assert scarce.tags.rollovers == 1


def test_roots_that_take_a_tag_each_run_out_of_them_and_pcids_do_not():
    for apart, rollovers in (("tag", 2), ("pcid", 0)):  # spaces 0 to 5, two at a time
        both = Both([Vm("vpid", apart)], limit=2)
        both.do("enter", 0, 0)
        for root in (1, 2, 3, 4, 5):
            both.do("load", 0, root, True)
        assert both.tags.rollovers == rollovers


def test_a_load_of_cr3_flushes_the_space_that_it_loads_unless_told_not_to():
    both = Both([Vm("vpid", "pcid")])
    both.do("enter", 0, 0)
    both.do("load", 0, 1, False)
    both.touch(0, PAGE, 0x1000)
    both.do("load", 0, 2, False)
    assert both.visible(0) == set()
    both.do("load", 0, 1, True)
    assert both.visible(0) == {(PAGE, 0x1000)}
    both.do("load", 0, 2, False)
    both.do("load", 0, 1, False)
    assert both.visible(0) == set()


def test_invlpg_and_flushes_are_of_the_one_core_until_the_vm_comes_to_another():
    both = Both([Vm("vpid", None), Vm("vpid", None)], cores=2)
    for core in (0, 1):
        both.do("enter", 0, core)
        both.touch(0, PAGE, 0x1000)
        both.touch(0, PAGE, 0x2000)
        both.do("leave", 0)
    kept = both.cores["l2_tlb0"]["tag"][0].copy()
    both.do("enter", 0, 1)
    both.do("invalidate", 0, 0, 0x1000, 0x1FFF)
    assert both.visible(0) == {(PAGE, 0x2000)}
    assert (both.cores["l2_tlb0"]["tag"][0] == kept).all()
    both.do("leave", 0)
    both.do("enter", 0, 0)
    assert both.visible(0) == set()


def test_the_number_of_a_space_that_is_no_more_serves_another():
    both = Both([Vm("vpid", "pcid")], cores=2)
    both.do("enter", 0, 0)
    for space in range(1, 400):
        both.do("load", 0, space, False)
        both.touch(0, PAGE, 0x1000)
        both.do("load", 0, 0, True)
        both.do("release", 0, space)
    assert both.tags.given < 5


def test_nothing_is_left_of_a_vm_that_has_ended():
    both = Both([Vm("vpid", "pcid"), Vm("vpid", None)], cores=2)
    for core in (0, 1):
        for vm in (0, 1):
            both.do("enter", vm, core)
            both.do("load", vm, core + 1, True)
            for kind in UNITS:
                both.touch(vm, kind, 0x5000)
            both.do("leave", vm)
    full = {unit: int((both.cores[unit]["tag"] >= 0).sum()) for unit in UNITS.values()}
    assert full == dict.fromkeys(UNITS.values(), 4)
    both.spaces[0].close()
    other = both.registers[1][0]
    for kind, unit in UNITS.items():
        tags = both.cores[unit]["tag"]
        asid = other.nested_asid if kind == NESTED else other.asid
        assert (tags[tags >= 0] >> ASID_SHIFT == asid >> ASID_SHIFT).all()
        assert (tags >= 0).sum() == 2
    assert {vm for core in (0, 1) for vm, _ in both.tags.holders(core).values()} == {1}


@pytest.mark.parametrize("apart", [None, "pcid", "tag"])
@pytest.mark.parametrize("kernel", ["global", "own"])
def test_a_load_of_cr3_keeps_global_pages_of_the_kernel_and_no_others(kernel: Any, apart: Any) -> None:
    """SDM vol. 3A section 5.10.4.1: MOV to CR3 flushes all but global entries, without PCIDs and with bit 63 clear."""
    cores = make_cores(ROOMY, 1)
    registers = make_vm()
    spaces = Tags(cores, limit=100, amd=False).spaces(registers, 0, tags="vpid", apart=apart, kernel=kernel)
    spaces.enter(0)

    def keep() -> None:
        ways = cores["l2_tlb0"]["tag"][0, 0]
        ways[0] = int(registers["asid"][0]) | 5 << 2
        ways[1] = int(registers["asid"][0]) + spaces.kernel_apart | 7 << 2

    def hits() -> tuple[bool, bool]:
        """Whether a program hits what it has kept, and its kernel its own."""
        tags = cores["l2_tlb0"]["tag"][0, 0].tolist()
        asid = int(registers["asid"][0])
        assert (asid | 7 << 2) not in tags  # no program ever hits the kernel's
        return (asid | 5 << 2) in tags, (asid + spaces.kernel_apart | 7 << 2) in tags

    keep()
    assert hits() == (True, True)
    spaces.invalidate(5 << 12, (5 << 12) + 1)
    assert hits() == (False, True)
    keep()
    spaces.load(3, keep=False)
    assert hits() == (False, kernel == "global")
    spaces.load(0, keep=True)
    told = apart is not None
    assert hits() == (told, kernel == "global" or told)
    spaces.load(0, keep=False)
    assert hits() == (False, kernel == "global")
    keep()
    spaces.flush_nested()  # INVEPT: combined mappings, global ones too
    assert hits() == (False, False)
