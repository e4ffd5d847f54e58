"""Does detection name the preset of real machines, say what they have, what it cannot know, and refuse what is no x86?

The texts are what Linux writes in /proc/cpuinfo on such machines, cut down to the lines and flags that count.
"""

import json
import platform
import struct
import sys
from collections.abc import Callable

import pytest
from click.testing import CliRunner

from vmsim.base.errors import InputError
from vmsim.cli.cpus import command
from vmsim.scenario import cpu_names
from vmsim.scenario.detect import detect, identify, nearest_preset, read_registers


def _text(vendor: str, family: int, model: int, stepping: int, name: str, flags: str, more: str = "") -> str:
    lines = [
        "processor\t: {cpu}",
        f"vendor_id\t: {vendor}",
        f"cpu family\t: {family}",
        f"model\t\t: {model}",
        f"model name\t: {name}",
        f"stepping\t: {stepping}",
        "cpu MHz\t\t: 2095.078",
        f"flags\t\t: fpu vme de pse tsc msr pae cx8 lm {flags}",
        *([f"vmx flags\t: {more}"] if more else []),
        "bugs\t\t: spectre_v1 spectre_v2",
    ]
    block = "\n".join(lines) + "\n\n"
    return block.format(cpu=0) + block.format(cpu=1)


SANDY = _text("GenuineIntel", 6, 42, 7, "Intel(R) Core(TM) i7-2600 CPU @ 3.40GHz", "vmx tpr_shadow ept vpid")
LAKE = _text(
    "GenuineIntel",
    6,
    85,
    7,
    "Intel(R) Xeon(R) Gold 6252 CPU @ 2.10GHz",
    "pdpe1gb vmx tpr_shadow ept vpid ept_ad",
    "vnmi invvpid ept_x_only ept_ad ept_1gb vtpr ept vpid pml",
)
SKYLAKE = _text("GenuineIntel", 6, 85, 4, "Intel(R) Core(TM) i9-7900X CPU @ 3.30GHz", "pdpe1gb vmx ept vpid ept_ad")
ICE = _text(
    "GenuineIntel",
    6,
    106,
    6,
    "Intel(R) Xeon(R) Platinum 8380 CPU @ 2.30GHz",
    "pdpe1gb la57 vmx ept vpid ept_ad",
    "ept_x_only ept_ad ept_1gb ept_5level ept vpid pml",
)
BROADWELL = _text("GenuineIntel", 6, 79, 1, "Intel(R) Xeon(R) CPU E5-2699 v4 @ 2.20GHz", "pdpe1gb vmx ept vpid ept_ad")
CORE2 = _text("GenuineIntel", 6, 23, 10, "Intel(R) Core(TM)2 Duo CPU E8500 @ 3.16GHz", "vmx tpr_shadow")
PRESLER = _text("GenuineIntel", 15, 6, 4, "Intel(R) Pentium(R) D CPU 3.40GHz", "vmx")
WILLAMETTE = _text("GenuineIntel", 15, 1, 2, "Intel(R) Pentium(R) 4 CPU 1.80GHz", "")
PHENOM = _text("AuthenticAMD", 16, 10, 0, "AMD Phenom(tm) II X6 1090T Processor", "pdpe1gb svm npt lbrv svm_lock")
MATISSE = _text("AuthenticAMD", 23, 113, 0, "AMD Ryzen 7 3700X 8-Core Processor", "pdpe1gb svm npt")
SUMMIT = _text("AuthenticAMD", 23, 1, 1, "AMD Ryzen 7 1800X Eight-Core Processor", "pdpe1gb svm npt")
MILAN = _text("AuthenticAMD", 25, 1, 1, "AMD EPYC 7313 16-Core Processor", "pdpe1gb svm npt")
GUEST = _text("AuthenticAMD", 25, 1, 1, "AMD EPYC", "pdpe1gb hypervisor cmp_legacy")
GENOA = _text("AuthenticAMD", 25, 17, 1, "AMD EPYC 9354 32-Core Processor", "pdpe1gb la57 svm npt")
GRANITE = _text("AuthenticAMD", 26, 68, 0, "AMD Ryzen 9 9950X 16-Core Processor", "pdpe1gb svm npt")
ARM = "processor\t: 0\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU part\t: 0xd08\n\n"


@pytest.mark.parametrize(
    ("text", "preset", "mode"),
    [
        (SANDY, "sandy-bridge", "ept"),
        (LAKE, "cascade-lake", "ept"),
        (SKYLAKE, "skylake-x", "ept"),
        (ICE, "ice-lake", "ept"),
        (BROADWELL, "haswell", "ept"),
        (CORE2, "core2", "shadow"),
        (PRESLER, "p4-672", "shadow"),
        (WILLAMETTE, None, "vkernel"),
        (PHENOM, "k10", "npt"),
        (SUMMIT, "zen1", "npt"),
        (MATISSE, "zen2", "npt"),
        (MILAN, "zen3", "npt"),
        (GUEST, "zen3", "vkernel"),
        (GENOA, "zen4", "npt"),
        (GRANITE, "zen5", "npt"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 20 else "",
)
def test_the_nearest_preset_and_the_mode_of_a_machine(text: str, preset: str | None, mode: str) -> None:
    found = detect(text)
    assert (found.preset, found.choice.mode) == (preset, mode)
    assert preset is None or preset in cpu_names()
    assert found.identity.cpus == 2
    assert f"model {found.identity.model:X}h" in found.why


def test_a_relative_is_said_to_be_one() -> None:
    assert "relative" in detect(BROADWELL).why
    assert "Broadwell" in detect(BROADWELL).why
    assert "relative" not in detect(MILAN).why


def test_every_preset_of_a_real_cpu_is_somebodys_nearest() -> None:
    families = [
        ("GenuineIntel", 6),
        ("GenuineIntel", 15),
        ("AuthenticAMD", 16),
        *(("AuthenticAMD", family) for family in (23, 25, 26)),
    ]
    named = {
        nearest_preset(identify(_text(vendor, family, model, stepping, "x", "")))[0]
        for vendor, family in families
        for model in range(256)
        for stepping in (4, 7)
    }
    assert named == {*cpu_names(), None} - {"yardstick"}


def test_features_come_from_both_lines_of_flags() -> None:
    lake, ice, sandy = detect(LAKE).has, detect(ICE).has, detect(SANDY).has
    assert lake.ept
    assert lake.ept_ad
    assert lake.ept_1g
    assert lake.pml
    assert not lake.la57
    assert ice.la57
    assert ice.ept_5level
    assert not sandy.ept_ad
    assert not sandy.pages_1g


def test_what_cannot_be_known_is_said() -> None:
    bare, guest = " ".join(detect(MILAN).unknown), " ".join(detect(GUEST).unknown)
    for text in (bare, guest):
        assert "page walk caches" in text
        assert "latencies" in text
        assert "/dev/cpu/0/cpuid" in text
    assert "hypervisor may hide" in guest
    assert "hypervisor" not in bare
    assert "firmware" in " ".join(detect(_text("GenuineIntel", 6, 60, 3, "i7-4770", "")).unknown)
    assert "/dev/cpu/0/msr" in " ".join(detect(LAKE).unknown)


def _machine(leaves: dict[int, tuple[int, int, int, int]], msrs: dict[int, int]) -> Callable[[int, int], bytes]:
    def read(place: int, size: int) -> bytes:
        if size == 16:
            return struct.pack("<4I", *leaves.get(place, (0, 0, 0, 0)))
        if place not in msrs:
            raise PermissionError
        return struct.pack("<Q", msrs[place])

    return read


def test_registers_outrank_the_flags() -> None:
    leaves = {0: (13, 0, 0, 0), 1: (0, 0, 1 << 5, 0), 0x8000_0000: (0x8000_0008, 0, 0, 0)}
    leaves[0x8000_0001] = (0, 0, 1, 1 << 29 | 1 << 26)
    registers = read_registers(_machine(leaves, {0x48B: 1 << 33 | 1 << 37, 0x48C: 1 << 6 | 1 << 21}))
    assert registers["leaf_1_ecx"] == 1 << 5
    assert registers["leaf_80000001_edx"] == 1 << 29 | 1 << 26
    assert "leaf_8000000a_edx" not in registers  # beyond the highest leaf
    found = detect(CORE2, registers)
    assert found.choice.mode == "ept"
    assert found.has.ept_ad
    without_msrs = read_registers(_machine(leaves, {}))
    assert "msr_48c" not in without_msrs
    assert detect(LAKE, without_msrs).has == detect(LAKE).has


def test_without_permission_nothing_is_read() -> None:
    def refuse(place: int, size: int) -> bytes:
        raise PermissionError

    assert read_registers(refuse) == {}


def test_a_machine_that_is_no_x86_is_refused() -> None:
    for text in (ARM, "", "nonsense"):
        with pytest.raises(InputError, match="no x86 processor"):
            detect(text)


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "i686"), reason="there is no x86 CPU under Linux"
)
def test_the_command_looks_at_this_machine() -> None:
    result = CliRunner().invoke(command, ["--detect", "--json"])
    assert result.exception is None
    found = json.loads(result.output)
    assert found["nearest_preset"] in {*cpu_names(), None}
    assert found["unknown"]
    assert found["mode"] in ("ept", "npt", "shadow", "vkernel")
    screen = CliRunner().invoke(command, ["--detect"]).output
    assert found["name"] in screen
    assert "not known" in screen


def test_detect_takes_no_preset() -> None:
    result = CliRunner().invoke(command, ["zen4", "--detect"])
    assert isinstance(result.exception, InputError)
