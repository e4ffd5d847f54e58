"""A disk of 7,200 turns a minute."""

from typing import Final

from vmsim.host.swap.spec import SwapDevice

__all__ = ["HDD"]

HDD: Final = SwapDevice(
    name="hdd",
    read="constant 7.4ms",
    write="constant 8.2ms",
    rotation=8_333_333,
    following=20_000,
    source="Western Digital Ultrastar DC HC310, OEM specification, tables 5 and 7: average seek 7.4 ms (read), 8.2 ms "
    "(write), 8.33 ms a turn. A page that follows another takes what 4 KiB take at 200 MB/s, which is not from there.",
    confidence="datasheet",
)
