"""What a CPU says of itself in CPUID and in its capability MSRs, decoded.

Registers are named by leaf or MSR number in hexadecimal. Sources: Intel SDM vol. 2A (CPUID), vol. 3D appendix A (VMX
capabilities); AMD APM vol. 3, appendix E.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, Strict

from vmsim.scenario.types import Model

__all__ = ["CpuidRegisters", "Features", "features"]

Register = Annotated[int, Strict(), Field(ge=0, lt=1 << 32)]
Msr = Annotated[int, Strict(), Field(ge=0, lt=1 << 63)]


class CpuidRegisters(Model):
    """Registers as the CPU gives them; 0 where it has no such leaf or MSR."""

    leaf_1_ecx: Register = Field(default=0, description="Bit 5: VMX.")
    leaf_7_ecx: Register = Field(default=0, description="Of subleaf 0. Bit 16: 5-level paging.")
    leaf_80000001_ecx: Register = Field(default=0, description="Bit 2: SVM.")
    leaf_80000001_edx: Register = Field(default=0, description="Bit 26: 1 GiB pages. Bit 29: long mode.")
    leaf_8000000a_ebx: Register = Field(default=0, description="Number of ASIDs, the host's among them.")
    leaf_8000000a_edx: Register = Field(default=0, description="Bit 0: nested paging.")
    msr_48b: Msr = Field(
        default=0, description="IA32_VMX_PROCBASED_CTLS2. Bits 33, 37, 49: EPT, VPID, PML may be turned on."
    )
    msr_48c: Msr = Field(
        default=0, description="IA32_VMX_EPT_VPID_CAP. Bits 6, 7: 4- and 5-level EPT; 17: 1 GiB pages; 21: A/D."
    )


@dataclass(frozen=True, slots=True)
class Features:
    """What a CPU has for virtual machines and for paging.

    Attributes
    ----------
    asids : int
        Of SVM; 0 without.
    """

    long_mode: bool = False
    la57: bool = False
    pages_1g: bool = False
    vmx: bool = False
    ept: bool = False
    ept_5level: bool = False
    ept_1g: bool = False
    ept_ad: bool = False
    vpid: bool = False
    pml: bool = False
    svm: bool = False
    npt: bool = False
    asids: int = 0

    @property
    def levels(self) -> tuple[int, ...]:
        """Depths of page tables: 4, and 5 where guests and hosts can have it."""
        return (4, 5) if self.la57 and (self.ept_5level or not self.ept) else (4,)


def features(cpuid: CpuidRegisters) -> Features:
    """Decode the registers of a CPU.

    A feature that needs another is reported only with it: EPT and VPID need VMX, nested paging needs SVM.
    """
    vmx, svm = _bit(cpuid.leaf_1_ecx, 5), _bit(cpuid.leaf_80000001_ecx, 2)
    ept = vmx and _bit(cpuid.msr_48b, 33) and _bit(cpuid.msr_48c, 6)
    return Features(
        long_mode=_bit(cpuid.leaf_80000001_edx, 29),
        la57=_bit(cpuid.leaf_7_ecx, 16),
        pages_1g=_bit(cpuid.leaf_80000001_edx, 26),
        vmx=vmx,
        ept=ept,
        ept_5level=ept and _bit(cpuid.msr_48c, 7),
        ept_1g=ept and _bit(cpuid.msr_48c, 17),
        ept_ad=ept and _bit(cpuid.msr_48c, 21),
        vpid=vmx and _bit(cpuid.msr_48b, 37),
        pml=ept and _bit(cpuid.msr_48b, 49),
        svm=svm,
        npt=svm and _bit(cpuid.leaf_8000000a_edx, 0),
        asids=cpuid.leaf_8000000a_ebx if svm else 0,
    )


def _bit(register: int, number: int) -> bool:
    return bool(register >> number & 1)
