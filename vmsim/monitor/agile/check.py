"""Where the tables lie that a walk under agile paging goes through: for `--check`."""

from __future__ import annotations

from vmsim.contracts import Words
from vmsim.machine.formats import FRAME, SWITCH
from vmsim.machine.memory import entry_at, read_word
from vmsim.tables.backing import UNBACKED
from vmsim.tables.edit import translate

__all__ = ["table_on_way"]


def table_on_way(memory: Words, nested: tuple[int, int], table: int, level: int, wanted: int, gva: int) -> int:
    """Return the hpa of the table of level `wanted` on the way to `gva`, or UNBACKED.

    The walk begins in the shadow and may switch to the guest's tables. `table` is what CR3 holds, SWITCH included;
    `nested` are root and levels of the tables that give hpas of gpas.
    """
    switched, table = table & SWITCH, table & FRAME
    while level > wanted:
        entry = int(read_word(memory, entry_at(table, gva, level)))
        table = entry & FRAME
        if switched:
            table = int(translate(memory, *nested, table))
            if table == UNBACKED:
                return UNBACKED
        switched |= entry & SWITCH
        level -= 1
    return table
