"""A SATA SSD of 2015."""

from typing import Final

from vmsim.host.swap.spec import SwapDevice

__all__ = ["SATA"]

SATA: Final = SwapDevice(
    name="sata",
    read="constant 100us",
    write="constant 25us",
    channels=10,
    write_channels=2,
    source="Samsung 850 EVO 1TB, data sheet: 10,000 random reads and 40,000 random writes of 4 KiB a second one by one "
    "(QD1); 98,000 and 90,000 with 32 on their way (QD32), from memory, which give the channels. That times do not "
    "vary is a guess.",
    confidence="derived",
)
