"""Are CPUID registers decoded as the manuals say, do the presets agree with theirs, and what does mode auto choose?"""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmsim.base.errors import InputError
from vmsim.scenario import Scenario, cpu_names
from vmsim.scenario.choice import choose, choose_from
from vmsim.scenario.cpu_files import load_cpu
from vmsim.scenario.cpuid import CpuidRegisters, Features, features
from vmsim.scenario.modes import paging_modes

SCENARIO = """
[host]
cpu = "{cpu}"
memory = "256MiB"
[[vm]]
name = "db"
memory = "64MiB"
mode = "{mode}"
workload = {{ kind = "uniform", footprint = "1MiB", accesses = 10 }}
"""
# The bits as the manuals number them: SDM vol. 2A and 3D appendix A, APM vol. 3 appendix E.
BITS = {
    "vmx": ("leaf_1_ecx", 5),
    "la57": ("leaf_7_ecx", 16),
    "svm": ("leaf_80000001_ecx", 2),
    "pages_1g": ("leaf_80000001_edx", 26),
    "long_mode": ("leaf_80000001_edx", 29),
    "npt": ("leaf_8000000a_edx", 0),
    "vpid": ("msr_48b", 37),
    "pml": ("msr_48b", 49),
    "ept_5level": ("msr_48c", 7),
    "ept_1g": ("msr_48c", 17),
    "ept_ad": ("msr_48c", 21),
}
# What /proc/cpuinfo of a Xeon Gold 5318Y (Ice Lake) names, and Intel's model of Sapphire Rapids for QEMU.
CAPABILITIES = {
    "ice-lake": {"ept", "vpid", "pml", "ept_1g", "ept_ad", "ept_5level", "la57", "pages_1g"},
    "sapphire-rapids": {"ept", "vpid", "pml", "ept_1g", "ept_ad", "ept_5level", "la57", "pages_1g"},
}
NEEDS = {"npt": {"svm"}, "vpid": {"vmx"}} | {key: {"vmx", "ept"} for key in ("pml", "ept_5level", "ept_1g", "ept_ad")}
_WIDTH = {name: 63 if name.startswith("msr") else 32 for name in CpuidRegisters.model_fields}
ALL_SET = CpuidRegisters(**{name: (1 << width) - 1 for name, width in _WIDTH.items()})
registers = st.builds(CpuidRegisters, **{name: st.integers(0, 2**width - 1) for name, width in _WIDTH.items()})


@pytest.mark.parametrize("feature", BITS)
def test_one_bit_decides_each_feature(feature: str) -> None:
    register, bit = BITS[feature]
    without = ALL_SET.model_copy(update={register: getattr(ALL_SET, register) & ~(1 << bit)})
    assert getattr(features(ALL_SET), feature) is True
    assert getattr(features(without), feature) is False
    lost = {name for name in Features.__slots__ if getattr(features(without), name) != getattr(features(ALL_SET), name)}
    assert lost - {"asids"} == {feature} | {name for name, needs in NEEDS.items() if feature in needs} | (
        {"ept"} if feature == "vmx" else set()
    )


@given(registers)
def test_a_feature_is_never_there_without_what_it_needs(cpuid: CpuidRegisters) -> None:
    has = features(cpuid)
    for feature, needs in NEEDS.items():
        assert not getattr(has, feature) or all(getattr(has, need) for need in needs)
    assert has.ept == (has.vmx and cpuid.msr_48b >> 33 & 1 == 1 and cpuid.msr_48c >> 6 & 1 == 1)
    assert has.asids == (cpuid.leaf_8000000a_ebx if has.svm else 0)


@pytest.mark.parametrize("name", cpu_names())
def test_a_preset_has_the_modes_that_its_registers_say(name: str) -> None:
    cpu = load_cpu(name)
    assert cpu.cpuid is not None
    has = features(cpu.cpuid)
    assert {name for name, mode in paging_modes().items() if mode.hardware and mode.offered(has)} == set(cpu.modes)
    assert has.levels == cpu.levels
    assert has.ept == has.ept_ad is True if cpu.ept_ad and cpu.vendor == "intel" else not has.ept_ad
    if cpu.vendor == "amd":
        assert has.asids == cpu.tlb.tags
        assert has.long_mode
        assert has.pages_1g


@pytest.mark.parametrize(("name", "named"), CAPABILITIES.items())
def test_registers_have_the_capabilities_that_linux_and_qemu_name(name: str, named: set[str]) -> None:
    cpu = load_cpu(name)
    assert cpu.cpuid is not None
    has = features(cpu.cpuid)
    asked = {"ept", "vpid", "pml", "ept_1g", "ept_ad", "ept_5level", "la57", "pages_1g"}
    assert {feature for feature in asked if getattr(has, feature)} == named


@pytest.mark.parametrize("name", cpu_names())
def test_no_register_is_a_guess(name: str) -> None:
    registers = [figure for figure in load_cpu(name).figures() if figure.key.startswith("cpuid.")]
    assert {figure.key.removeprefix("cpuid.") for figure in registers} == set(CpuidRegisters.model_fields)
    assert not [figure.key for figure in registers if figure.confidence == "guess"]


@pytest.mark.parametrize("name", cpu_names())
def test_auto_chooses_the_nested_mode_of_the_vendor(name: str) -> None:
    choice = choose(load_cpu(name))
    if load_cpu(name).modes == ("native",):
        assert (choice.mode, name in ("p4-672", "core2")) == ("shadow", True)
        return
    assert choice.mode == ("npt" if load_cpu(name).vendor == "amd" else "ept")
    assert name in choice.reason
    assert ("8000_0001" if choice.mode == "npt" else "ECX[5]") in choice.reason


def test_without_second_dimension_auto_is_shadow_without_any_help_vkernel_and_never_native() -> None:
    ivy = Features(vmx=True)
    assert choose_from(ivy, "x").mode == "shadow"
    assert "no EPT" in choose_from(ivy, "x").reason
    assert "no nested paging" in choose_from(Features(svm=True), "x").reason
    assert choose_from(Features(svm=True), "x").mode == "shadow"
    assert choose_from(Features(), "x").mode == "vkernel"
    assert "neither SVM" in choose_from(Features(), "x").reason
    assert choose_from(replace(ivy, ept=True), "x").mode == "ept"


def test_a_file_without_registers_is_believed_in_its_modes() -> None:
    bare = load_cpu("zen4").model_copy(update={"cpuid": None})
    assert choose(bare).mode == "npt"
    assert "no CPUID" in choose(bare).reason
    assert choose(bare.model_copy(update={"modes": ("native",)})).mode == "shadow"


@pytest.mark.parametrize(("cpu", "mode"), [("skylake-x", "ept"), ("zen4", "npt")])
def test_a_scenario_in_auto_is_the_same_simulation_as_in_the_mode_chosen(cpu: str, mode: str) -> None:
    auto = Scenario.from_toml(SCENARIO.format(cpu=cpu, mode="auto"))
    given_mode = Scenario.from_toml(SCENARIO.format(cpu=cpu, mode=mode))
    assert auto.vms[0].mode == mode
    assert auto.canonical() == given_mode.canonical()
    assert auto.choices["db"].mode == mode
    assert not given_mode.choices
    assert Scenario.from_toml(auto.to_toml()) == auto


def test_registers_that_lack_all_help_turn_auto_to_vkernel(tmp_path: Path) -> None:
    text = (
        'name = "old"\ninherit = "k10"\n[cpuid]\nsource = "BIOS with SVM off"\nconfidence = "given"\n'
        "leaf_80000001_ecx = 0x37FB\n"
    )
    (tmp_path / "old.toml").write_text(text)
    scenario = Scenario.from_toml(SCENARIO.format(cpu="old.toml", mode="auto"), folder=tmp_path)
    assert scenario.vms[0].mode == "vkernel"
    assert "neither SVM" in scenario.choices["db"].reason


def test_a_wrong_mode_is_told_with_the_nearest_one() -> None:
    with pytest.raises(InputError, match=r"mode.*auto|mode.*'ept'"):
        Scenario.from_toml(SCENARIO.format(cpu="zen4", mode="autp"))
