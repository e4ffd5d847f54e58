"""Random tables for a world: of a guest, of its host, a shadow of both; with holes, and bits that have to be 0."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from tests.machine.worlds import FAR, GIB, HOST_TABLE, TABLE, World
from tests.oracle import bits
from tests.oracle.tables import Frames, Words, build, descend, load, place_of, store, translate, within

__all__ = ["add_no_execute", "add_reserved", "add_shadow", "guest_entries", "make_world"]


def _flags(random: Random, keep: float, always: int, *sometimes: int) -> int:
    """Return `always` and each of `sometimes` with probability `keep`."""
    return always | sum(flag for flag in sometimes if random.random() < keep)


def make_world(
    seed: int, mode: str, levels: int, nested_levels: int, guest_sizes: list[int], host_sizes: list[int], holes: float
) -> World:
    """Make random tables.

    Parameters
    ----------
    guest_sizes, host_sizes : list of int
        Leaf levels (1, 2, 3) that may occur.
    holes : float
        The part of entries that is missing or denies something.
    """
    random = Random(seed)
    words: Words = {}
    native = mode == "native"
    guest_frames = Frames(0x100)  # gfns of guest tables, in the first GiB of the guest
    host_frames = Frames(0x8_0000)  # pfns of nested tables, from 2 GiB on
    nested_root = 0 if native else host_frames.take()
    style = {}  # how the host maps each 2 MiB and each 1 GiB of the guest

    def back(gpa: int, table: bool) -> None:
        """Give `gpa` a frame, in a page of the size that its surroundings have; tables always writable and near."""
        large, middle = gpa // GIB, gpa // bits.span(2, bits.width(nested_levels))
        level = style.setdefault(large, random.choice(host_sizes))
        if level < 3:
            level = style.setdefault((middle, 2), random.choice([size for size in host_sizes if size < 3]))
        if table or large == 0:
            target = gpa + (GIB if level == 3 else 0)
            if level == 1:  # frames in another order than in the guest
                target = gpa ^ 0x7000
        else:
            target = (FAR if nested_levels > 2 else 0) + (gpa ^ (0x5000 if level == 1 else 0))
        absent = not table and random.random() < holes / 3
        if mode == "npt":
            rights = _flags(random, 1 - holes, bits.P | bits.US, bits.RW) | _flags(random, 0.5, 0, bits.A, bits.D)
        else:
            rights = _flags(random, 1 - holes, bits.EPT_R, bits.EPT_W, bits.EPT_X)
            rights |= _flags(random, 0.5, 0, bits.EPT_A, bits.EPT_D) if mode == "ept-ad" else 0
        if table:
            rights |= bits.RW
        if not absent:
            build(words, host_frames, nested_root, nested_levels, gpa, level, target, HOST_TABLE[mode], rights)

    def hpa_of(gpa: int) -> int:
        if native:
            return gpa
        if translate(words, nested_root, nested_levels, gpa) is None:
            back(gpa, True)
        place = translate(words, nested_root, nested_levels, gpa)
        assert place is not None
        return place[0]

    def table_frame() -> int:
        gpa = guest_frames.take()
        if not native:
            back(gpa, True)
        return gpa

    cr3 = table_frame()
    pages = []
    tops = [random.sample(range(2 if level == 5 else 256 if level == 4 else 512), 2) for level in range(5, 1, -1)]
    for _ in range(random.randint(4, 24)):
        upper = [random.choice(choices) for choices in tops]
        gva = sum(number << (12 + 9 * (level - 1)) for level, number in zip(range(5, 1, -1), upper, strict=True))
        gva += random.randrange(12) * 4096
        gva %= bits.reach(levels)
        size = random.choice(guest_sizes)
        gpa = (
            ((1 if nested_levels < 4 or levels == 2 else size * 8) + random.randrange(3)) * GIB
            + random.randrange(4) * bits.span(2)
            + random.randrange(16) * 4096
        )
        # descend through the guest's tables, making what is missing
        table = cr3
        for level in range(levels, 0, -1):
            place = hpa_of(place_of(table, levels, level, gva))
            entry = load(words, place, levels)
            whole = bits.span(level, bits.width(levels))
            if level == size and not entry:
                entry = gpa // whole * whole | (bits.PS if level > 1 else 0)
                entry |= _flags(random, 1 - holes, 0, bits.P, bits.RW, bits.US) | _flags(random, 0.5, 0, bits.A, bits.D)
                store(words, place, levels, entry)
            if level == 1 or entry & bits.PS:
                break
            if not entry:
                # a whole subtree that denies something, sometimes
                rights = TABLE if random.random() > holes / 4 else random.choice([bits.P | bits.RW, bits.P | bits.US])
                flags = bits.P if level == levels == 3 else rights | _flags(random, 0.5, 0, bits.A)
                entry = table_frame() | flags
                store(words, place, levels, entry)
            table = entry & bits.ADDRESS
        gpa = within(entry, levels, level, gva)
        if not native and translate(words, nested_root, nested_levels, gpa) is None:
            back(gpa, False)
        pages.append(gva)
        for _ in range(random.randrange(3) if holes else 0):  # neighbours: other parts of large pages, or nothing
            near = (gva ^ random.choice([0x1000, 0x3000, 0x20_0000, 0x4000_0000])) % bits.reach(levels)
            pages.append(near)
            inside = within(entry, levels, level, near)
            same_page = near // whole == gva // whole
            if not native and same_page and not translate(words, nested_root, nested_levels, inside):
                back(inside, False)
    if not native and random.random() < 2 * holes:  # a guest table that lies nowhere, or may not be written
        gpa = 0x100_000 + random.randrange(guest_frames.next - 0x100) * 4096
        *_, (_, place, entry) = descend(words, nested_root, nested_levels, gpa)
        store(words, place, nested_levels, random.choice([0, entry & ~bits.RW]))
    return World(words, mode, levels, 0 if native else nested_levels, cr3, nested_root, pages)


def guest_entries(world: World, gva: int) -> list[int]:
    """Return where the guest's entries for `gva` lie, root first, as far as there are any."""
    places, table = [], world.cr3
    for level in range(world.levels, 0, -1):
        place = table + 8 * bits.index(gva, level)
        if world.nested_levels:
            found = translate(world.words, world.nested_root, world.nested_levels, place)
            if found is None:
                break
            place, _ = found
        places.append(place)
        entry = world.words.get(place, 0)
        if not entry & bits.P or level == 1 or entry & bits.PS:
            break
        table = entry & bits.ADDRESS
    return places


def add_reserved(world: World, seed: int) -> World:
    """Return the world with bits of the guest's entries set that have to be 0 in some of them."""
    random = Random(seed)
    for gva in random.sample(world.pages, min(len(world.pages), 6)):
        present = [place for place in guest_entries(world, gva) if world.words.get(place, 0)]
        for place in present and [random.choice(present)]:
            world.words[place] |= random.choice([bits.PS, 1 << random.randrange(12, 30), 1 << random.randrange(9)])
    return world


def add_no_execute(world: World, seed: int) -> World:
    """Return the world with NX in some entries that map pages: of a guest, a shadow, NPT (EPT has no such bit)."""
    random, words = Random(seed), world.words
    for gva in random.sample(world.pages, len(world.pages) // 2):
        if world.agile:
            steps = []
            for step in () if world.cr3 & bits.SWITCH else descend(words, world.cr3, world.levels, gva):
                steps.append(step)
                if step[2] & bits.SWITCH:
                    break
        else:
            places = guest_entries(world, gva)
            steps = [(world.levels - number, place, words.get(place, 0)) for number, place in enumerate(places)]
        if world.mode == "npt" and world.nested_levels > 2 and steps:
            gpa = steps[-1][2] & bits.ADDRESS
            steps += [*descend(words, world.nested_root, world.nested_levels, gpa)][-1:]
        most = min(bits.highest_leaf(world.levels), bits.highest_leaf(world.nested_levels or 5))
        for level, place, entry in steps:
            if entry & bits.P and (level == 1 or (entry & bits.PS and level <= most)) and random.random() < 0.7:
                words[place] = entry | bits.NX
    return world


def add_shadow(world: World, seed: int, switching: float) -> World:
    """Return the world with shadow tables for its pages, whose entries switch with the probability `switching`."""
    random, words, frames = Random(seed), world.words, Frames(0xB_0000)
    nested = world.nested_root, world.nested_levels

    def hpa_of(gpa: int) -> int | None:
        place = translate(words, *nested, gpa)
        return place[0] if place else None

    def shadow(table: int, guest: int, level: int, gva: int) -> None:
        """Mirror the way to `gva` from the guest's table at gpa `guest` on."""
        there = hpa_of(guest + 8 * bits.index(gva, level))
        entry = 0 if there is None else words.get(there, 0)
        rights = entry & bits.RIGHTS | _flags(random, 0.5, 0, bits.A)
        if not entry:
            return
        if level == 1 or entry & bits.PS:
            page = hpa_of((entry & bits.ADDRESS) // bits.span(level) * bits.span(level) + gva % bits.span(level))
            if page is not None:
                build(words, frames, table, level, gva, 1, page, rights, rights)
            return
        below = hpa_of(entry & bits.ADDRESS)
        place = table + 8 * bits.index(gva, level)
        if place not in words:
            switch = below is not None and random.random() < switching
            words[place] = (below | bits.SWITCH if switch else frames.take()) | rights
        if not words[place] & bits.SWITCH:
            shadow(words[place] & bits.ADDRESS, entry & bits.ADDRESS, level - 1, gva)

    root = frames.take()
    for gva in world.pages:
        shadow(root, world.cr3, world.levels, gva)
    guest = hpa_of(world.cr3)
    if guest is not None and random.random() < switching / 2:
        root = guest | bits.SWITCH
    return replace(world, agile=True, cr3=root)
