"""An NVMe SSD of 2019."""

from typing import Final

from vmsim.host.swap.spec import SwapDevice

__all__ = ["NVME"]

NVME: Final = SwapDevice(
    name="nvme",
    read="constant 52632ns",
    write="constant 16667ns",
    channels=32,
    write_channels=9,
    source="Samsung 970 EVO Plus 1TB, data sheet: 19,000 random reads and 60,000 random writes of 4 KiB a second one "
    "by one (QD1), 600,000 and 550,000 with 32 on their way (QD32), which give the channels. That times do not vary is "
    "a guess.",
    confidence="derived",
)
