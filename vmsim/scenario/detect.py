"""The machine that vmsim runs on, as Linux and CPUID describe it, and the CPU preset nearest to it.

What is read: ``/proc/cpuinfo``; and, where the system lets us, CPUID itself through ``/dev/cpu/0/cpuid`` and the VMX
capability MSRs through ``/dev/cpu/0/msr``. Models of Intel's family 6 and AMD's families are those that Linux names
(arch/x86/include/asm/intel-family.h, arch/x86/kernel/cpu/amd.c).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from vmsim.base.errors import InputError
from vmsim.scenario.choice import Choice, choose_from
from vmsim.scenario.cpuid import CpuidRegisters, Features, features

__all__ = ["Detected", "Identity", "detect", "identify", "nearest_preset", "read_registers"]

_VENDORS: Final = {"GenuineIntel": "intel", "AuthenticAMD": "amd"}

# Models by preset: those that have its core, and those whose core only descends from it, or leads to it.
_SAME: Final[dict[tuple[str, int], dict[str, tuple[int, ...]]]] = {
    ("intel", 0xF): {"p4-672": (0x04,)},
    ("intel", 6): {
        "core2": (0x0F,),
        "nehalem": (0x1A, 0x1E, 0x1F, 0x2E),
        "sandy-bridge": (0x2A, 0x2D),
        "haswell": (0x3C, 0x3F, 0x45, 0x46),
        "skylake-x": (0x55,),
        "ice-lake": (0x6A, 0x6C),
        "sapphire-rapids": (0x8F,),
    },
    ("amd", 0x10): {"k10": tuple(range(0x10))},
    ("amd", 0x17): {
        "zen1": (*range(0x30),),
        "zen2": (*range(0x30, 0xB0),),
    },
    ("amd", 0x19): {
        "zen3": (*range(0x10), *range(0x20, 0x60)),
        "zen4": (*range(0x10, 0x20), *range(0x60, 0x80), *range(0xA0, 0xB0)),
    },
    ("amd", 0x1A): {"zen5": tuple(range(0x80))},
}
_KIN: Final[dict[tuple[str, int], dict[str, tuple[tuple[int, ...], str]]]] = {
    ("intel", 0xF): {"p4-672": ((0x03, 0x06), "Prescott before it, or Cedar Mill, its successor")},
    ("intel", 6): {
        "core2": ((0x16, 0x17, 0x1D), "its smaller part, or Penryn, its successor, with a larger L2"),
        "nehalem": ((0x25, 0x2C, 0x2F), "Westmere, its successor"),
        "sandy-bridge": ((0x3A, 0x3E), "Ivy Bridge, its successor"),
        "haswell": ((0x3D, 0x47, 0x4F, 0x56), "Broadwell, its successor, with a larger L2 TLB"),
        "skylake-x": (
            (0x4E, 0x5E, 0x8E, 0x9E, 0xA5, 0xA6),
            "Skylake for desktops and its successors, with smaller caches",
        ),
        "ice-lake": ((0x7D, 0x7E, 0x8C, 0x8D, 0xA7), "Ice Lake or Tiger Lake for desktops, with other caches"),
        "sapphire-rapids": (
            (0x97, 0x9A, 0xB7, 0xBA, 0xBF, 0xCF),
            "Emerald Rapids, Alder Lake or Raptor Lake, with other caches",
        ),
    },
    ("amd", 0x12): {"k10": ((0x01,), "Llano, its successor")},
}


@dataclass(frozen=True, slots=True)
class Identity:
    """What a processor says in ``/proc/cpuinfo``.

    Attributes
    ----------
    vendor : str
        intel, amd, or what is written there.
    flags : frozenset of str
        Of the lines ``flags`` and ``vmx flags``.
    hypervisor : bool
        It is itself a virtual CPU.
    """

    vendor: str
    name: str
    family: int
    model: int
    stepping: int
    flags: frozenset[str]
    cpus: int

    @property
    def hypervisor(self) -> bool:
        """Whether this machine is itself a virtual one."""
        return "hypervisor" in self.flags

    def features(self) -> Features:
        """Return what the flags say."""
        has = self.flags.__contains__
        ept = has("vmx") and has("ept")
        return Features(
            long_mode=has("lm"),
            la57=has("la57"),
            pages_1g=has("pdpe1gb"),
            vmx=has("vmx"),
            ept=ept,
            ept_5level=ept and has("ept_5level"),
            ept_1g=ept and has("ept_1gb"),
            ept_ad=ept and has("ept_ad"),
            vpid=has("vmx") and has("vpid"),
            pml=ept and has("pml"),
            svm=has("svm"),
            npt=has("svm") and has("npt"),
        )


@dataclass(frozen=True, slots=True)
class Detected:
    """A machine and how it compares with the presets.

    Attributes
    ----------
    preset : str or None
        The nearest one.
    why : str
        What makes it the nearest, or why there is none.
    has : Features
        From CPUID where it could be read, else from the flags of ``/proc/cpuinfo``.
    choice : Choice
        What ``mode = "auto"`` would be on it.
    unknown : tuple of str
        What cannot be known from here.
    """

    identity: Identity
    preset: str | None
    why: str
    has: Features
    choice: Choice
    unknown: tuple[str, ...] = ()
    registers: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON types."""
        found = self.identity
        return {
            "name": found.name,
            "vendor": found.vendor,
            "family": found.family,
            "model": found.model,
            "stepping": found.stepping,
            "cpus": found.cpus,
            "hypervisor": found.hypervisor,
            "nearest_preset": self.preset,
            "why": self.why,
            "features": {name: getattr(self.has, name) for name in Features.__slots__},
            "mode": self.choice.mode,
            "reason": self.choice.reason,
            "unknown": list(self.unknown),
            "cpuid": self.registers,
        }


def identify(cpuinfo: str) -> Identity:
    """Read the text of ``/proc/cpuinfo``: its first processor, and how many there are.

    Raises
    ------
    InputError
        It describes no x86 processor.
    """
    blocks = [block for block in re.split(r"\n\s*\n", cpuinfo) if re.search(r"^processor\s*:", block, re.MULTILINE)]
    fields: dict[str, str] = {}
    for line in blocks[0].splitlines() if blocks else ():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    numbers = [fields.get(key, "") for key in ("cpu family", "model", "stepping")]
    if "vendor_id" not in fields or not all(number.isdigit() for number in numbers[:2]):
        raise InputError(
            "/proc/cpuinfo describes no x86 processor: expected lines vendor_id, cpu family and model. "
            "vmsim cpus lists the presets to choose from by hand."
        )
    family, model, stepping = (int(number) if number.isdigit() else 0 for number in numbers)
    vendor = fields["vendor_id"]
    flags = frozenset(f"{fields.get('flags', '')} {fields.get('vmx flags', '')}".split())
    name = fields.get("model name", "unknown")
    return Identity(_VENDORS.get(vendor, vendor), name, family, model, stepping, flags, len(blocks))


def nearest_preset(found: Identity) -> tuple[str | None, str]:
    """Return the preset nearest to a processor, and why it is; None if none is near."""
    key = found.vendor, found.family
    place = f"family {found.family:X}h, model {found.model:X}h"
    for preset, models in _SAME.get(key, {}).items():
        if found.model in models:
            if preset == "skylake-x" and found.stepping >= 5:
                return "cascade-lake", f"{place} from stepping 5 on is Cascade Lake"
            return preset, f"{place} has the core of this preset; caches and clock may differ from those of its part"
    for preset, (models, what) in _KIN.get(key, {}).items():
        if found.model in models:
            return preset, f"{place} is a relative of this preset: {what}"
    return None, f"no preset has or resembles the core of {place} of {found.vendor}"


def read_registers(read: Callable[[int, int], bytes] | None = None) -> dict[str, int]:
    """Return the registers of `CpuidRegisters` that can be read from here; empty without the permission.

    Parameters
    ----------
    read : callable, optional
        In the place of ``/dev/cpu/0``: given a leaf (subleaf 0) and 16, the four registers as 16 bytes; given an MSR's
        number and 8, its 8 bytes. It may raise OSError.
    """
    read = read or _device
    registers: dict[str, int] = {}
    highest = {0: 0, 0x8000_0000: 0}
    for base in highest:
        highest[base] = _leaf(read, base).get("eax", 0)
    for name in CpuidRegisters.model_fields:
        kind, number, *register = name.split("_")
        if kind == "leaf":
            leaf = int(number, 16)
            found = _leaf(read, leaf) if leaf <= highest[leaf & 0x8000_0000] else {}
            if found:
                registers[name] = found[register[0]]
        elif registers.get("leaf_1_ecx", 0) >> 5 & 1:
            try:
                (registers[name],) = struct.unpack("<Q", read(int(number, 16), 8))
            except OSError:
                continue
    return registers


def detect(cpuinfo: str | None = None, registers: dict[str, int] | None = None) -> Detected:
    """Describe this machine, or the one whose ``/proc/cpuinfo`` and registers are given.

    Raises
    ------
    InputError
        There is no ``/proc/cpuinfo``, or it describes no x86 processor.
    """
    if cpuinfo is None:
        try:
            cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise InputError(f"/proc/cpuinfo: cannot be read: {error.strerror}. It is there on Linux alone.") from error
        registers = read_registers() if registers is None else registers
    found = identify(cpuinfo)
    known = dict(registers or {})
    preset, why = nearest_preset(found)
    has = found.features()
    if "leaf_1_ecx" in known and ("msr_48c" in known or not known["leaf_1_ecx"] >> 5 & 1):
        has = features(CpuidRegisters(**known))
    return Detected(found, preset, why, has, choose_from(has, "this machine"), tuple(_unknown(found, known)), known)


def _unknown(found: Identity, known: dict[str, int]) -> list[str]:
    lines = [
        "sizes of the page walk caches and of the nested TLB: no register says them",
        "latencies of TLBs, caches and memory, and the cost of exits: these are measured, not read",
    ]
    if "leaf_1_ecx" not in known:
        lines.append("CPUID itself: /dev/cpu/0/cpuid cannot be read from here (module cpuid, as root)")
    if found.vendor == "intel" and "vmx" in found.flags and "msr_48c" not in known:
        lines.append("the VMX capability MSRs: /dev/cpu/0/msr cannot be read from here; what is said is from the flags")
    if found.vendor == "amd" and not known.get("leaf_8000000a_ebx"):
        lines.append("how many ASIDs there are: CPUID 8000_000A EBX was not read")
    if found.hypervisor:
        lines.append("what the processor has: this machine is virtual, and its hypervisor may hide features or CPUs")
    elif not found.flags & {"vmx", "svm"}:
        lines.append("whether virtualisation is absent or only turned off by the firmware: the flags look the same")
    return lines


def _leaf(read: Callable[[int, int], bytes], leaf: int) -> dict[str, int]:
    try:
        return dict(zip(("eax", "ebx", "ecx", "edx"), struct.unpack("<4I", read(leaf, 16)), strict=True))
    except OSError:
        return {}


def _device(place: int, size: int) -> bytes:
    """Read a leaf (16 bytes) or an MSR (8 bytes) of the first processor."""
    device = "cpuid" if size == 16 else "msr"
    with Path(f"/dev/cpu/0/{device}").open("rb", buffering=0) as file:
        file.seek(place)
        data: bytes = file.read(size)
    if len(data) < size:
        raise OSError(f"/dev/cpu/0/{device}: {len(data)} bytes instead of {size}")
    return data
