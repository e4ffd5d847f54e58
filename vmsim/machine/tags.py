"""Tags: which address space the entries of TLBs and walk caches belong to, and what each event makes a core forget.

Intel: entries of a VM carry its VPID and a PCID; VM entries and exits then flush nothing. Without VPIDs a VM shares
VPID 0 with the host, and both entry and exit flush it (SDM vol. 3C §30.4.3.1). AMD: every guest has an ASID, whose
entries are those of both dimensions; a monitor that keeps none apart has all flushed at each VMRUN (APM vol. 2
§15.16). MOV to CR3 flushes the PCID that it loads, unless bit 63 says not to, and the whole address space where there
are no PCIDs; INVLPG acts on the current one (SDM vol. 3A §5.10.4.1). Each acts on its own core alone.

Tags are few: a core that has none left flushes all and starts again from the first (as Xen does with both kinds,
xen/arch/x86/hvm/asid.c). What an address space loses on one core is stale on the others, and is flushed there when it
comes back to them (Linux keeps tlb_gen for this, arch/x86/mm/tlb.c; KVM flushes a vCPU that has moved).

Here an address space has one number, the asid of the simulated entries, for as long as it lives; the tags that the
hardware would use decide only when a flush is due.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vmsim.machine.flush import ASIDS, LINEAR, NESTED, Flusher
from vmsim.machine.tlb import ASID_SHIFT

__all__ = ["Apart", "Kind", "Pages", "Spaces", "Tags"]

Kind = Literal["none", "vpid", "asid"]
Apart = Literal["pcid", "tag"]
Pages = Literal["global", "own"]
Key = tuple[int, int]  # a vCPU's number and that of an address space of it

NOWHERE = -1
_ALL = np.ones(ASIDS, bool)
_NONE = np.zeros(ASIDS, bool)


class _Core:
    """What a core has seen."""

    def __init__(self) -> None:
        self.tags: set[tuple[int, ...]] = set()  # who has a VPID or an ASID
        self.running: set[tuple[int, int]] = set()  # (kind, asid) of what may get entries as long as it runs
        self.last = NOWHERE  # the vCPU it ran last


class Tags:
    """The tags of a host's cores.

    Parameters
    ----------
    cores : record[:]
        From `layout.make_cores`.
    limit : int
        VPIDs or ASIDs that a core can tell apart, the host's own not counted.
    amd : bool
        The tags are AMD's: a flush of all takes in the host's entries and the nested dimension.
    """

    def __init__(self, cores: NDArray[Any], *, limit: int, amd: bool) -> None:
        self.flusher = Flusher(cores)
        self.limit = limit
        self.amd = amd
        self.rollovers = 0  # flushes because all tags were taken
        self._states = [_Core() for _ in range(len(cores))]
        self._numbers: dict[Key, int] = {}
        self._of: dict[int, dict[Key, None]] = {}  # those that have a number, by vCPU
        self._fresh: dict[Key, set[int]] = {}  # the cores on which all entries of a space are good
        self._kept: dict[tuple[int, int], set[int]] = {}  # the cores that may have entries of a kind and an asid
        self._free: list[int] = []
        self._vcpus: dict[int, Spaces] = {}
        self._gone = np.zeros(ASIDS, bool)

    def spaces(
        self,
        registers: NDArray[Any],
        vcpu: int,
        *,
        tags: Kind | None,
        apart: Apart | None,
        kernel: Pages | None = None,
        nested: int | None = None,
    ) -> Spaces:
        """Return the address spaces of a vCPU.

        Parameters
        ----------
        registers : record[1]
            The vCPU's register file: `asid` and `nested_asid` are set here.
        vcpu : int
            Its number on the host, 0 or more. KVM has a VPID or ASID for each vCPU (vmx.c, vmx_vcpu_create; svm.c,
            new_asid).
        tags : {"none", "vpid", "asid"} or None
            How the hardware tells it from others. None: it is no VM but a bare program, which has neither.
        apart : {"pcid", "tag"} or None
            How its own spaces are told apart: by PCID, or each by a VPID or ASID of its own (as a shadow monitor may do
            with its roots). None: not at all, so that each load of CR3 flushes.
        kernel : {"global", "own"} or None, optional
            How the TLBs keep pages of its kernel: as global (SDM vol. 3A §5.10.2.4), or as other pages of each space.
            Either way no access of a program hits one. None: its kernel makes no accesses.
        nested : int, optional
            Whose guest-physical mappings it uses, by the number of a vCPU: those of one EPTP are common to the vCPUs
            that have it (SDM vol. 3C §30.4.1), those of an ASID its own. None: its own.
        """
        nested = vcpu if nested is None else nested
        registers["asid"] = self._number((vcpu, 0)) << ASID_SHIFT
        registers["nested_asid"] = nested + 1 << ASID_SHIFT
        made = self._vcpus[vcpu] = Spaces(self, registers, vcpu, nested, tags=tags, apart=apart, kernel=kernel)
        return made

    def holders(self, core: int) -> dict[int, Key]:
        """Return who, (vCPU, space), could hit entries of each asid on a core; entries of others are dead."""
        return {number: key for key, number in self._numbers.items() if core in self._fresh.get(key, ())}

    @property
    def given(self) -> int:
        """The largest asid ever given out."""
        return len(self._numbers) + len(self._free)

    def use(self, core: int, key: Key) -> int:
        """Return the asid of a space that a core is to run, which has no entries there but good ones."""
        state = self._states[core]
        unit = self._vcpus[key[0]].unit(key)
        if unit and unit not in state.tags:
            if len(state.tags) == self.limit:
                self._roll_over(core)
            state.tags.add(unit)
        number = self._number(key)
        fresh = self._fresh.setdefault(key, set())
        if core not in fresh:
            self.forget([core], [key])
            fresh.add(core)
        for runs in ((LINEAR, number), (NESTED, self._vcpus[key[0]].nested + 1)):
            if runs not in state.running:
                state.running.add(runs)
                self._kept.setdefault(runs, set()).add(core)
        return number

    def forget(self, cores: Collection[int], keys: Iterable[Key]) -> None:
        """Flush linear and combined mappings of some spaces on some cores."""
        numbers = [self._numbers[key] for key in keys if key in self._numbers]
        if numbers:
            self._flush(cores, numbers, LINEAR)

    def stale(self, core: int, keys: Iterable[Key]) -> None:
        """Note that what the other cores keep of some spaces is out of date."""
        for key in keys:
            if cores := self._fresh.get(key):
                cores.intersection_update((core,))

    def release(self, key: Key) -> None:
        """Take back the number of a space that is no more."""
        if key in self._numbers:
            self._free.append(self._numbers.pop(key))
            del self._of[key[0]][key]
            self._fresh.pop(key, None)

    def of(self, vcpu: int) -> list[Key]:
        """Return the spaces of a vCPU."""
        return [*self._of.get(vcpu, ())]

    def arrive(self, core: int, vcpu: int) -> bool:
        """Note that a core runs a vCPU; return whether it ran another one before."""
        state = self._states[core]
        other = state.last not in (vcpu, NOWHERE)
        state.last = vcpu
        state.running.clear()
        return other

    def flush_untagged(self, core: int) -> None:
        """Flush what a VM entry or exit without a tag does: VPID 0, or on AMD all that the core keeps."""
        if self.amd:
            self._flush_everything(core)
        else:
            self.forget([core], self._without_tags())

    def untagged(self) -> tuple[NDArray[np.bool_], int]:
        """Return what `flush_untagged` flushes, as of `flush.forget`: asids, bool[ASIDS], and kinds of units."""
        if self.amd:
            return _ALL, LINEAR | NESTED
        gone = np.zeros(ASIDS, bool)
        gone[[self._numbers[key] for key in self._without_tags()]] = True
        return gone, LINEAR

    def flush_shared(self, core: int) -> None:
        """Flush what bare programs without PCIDs have on a core: they share PCID 0."""
        self.forget([core], [key for key in self._without_tags() if self._vcpus[key[0]].apart is None])

    def flush_nested(self, vcpus: Iterable[int], nested: Iterable[int]) -> None:
        """Flush guest-physical mappings, and those of vCPUs that are combined with them, on every core."""
        everywhere = range(len(self._states))
        self._flush(everywhere, [number + 1 for number in nested], NESTED)
        self.forget(everywhere, [key for vcpu in vcpus for key in self.of(vcpu)])

    def _number(self, key: Key) -> int:
        """Return the asid of a space."""
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = self._free.pop() if self._free else len(self._numbers) + 1
            if number == ASIDS:
                raise OverflowError(f"more than {ASIDS - 1} address spaces at once")
            self._of.setdefault(key[0], {})[key] = None
        return number

    def _without_tags(self) -> Iterator[Key]:
        """Yield the spaces of bare programs and of VMs without tags: VPID 0."""
        return (key for key in self._numbers if self._vcpus[key[0]].tags in (None, "none"))

    def _roll_over(self, core: int) -> None:
        """Take all tags of a core back (INVVPID all-context; TLB_CONTROL 1)."""
        self.rollovers += 1
        state = self._states[core]
        if self.amd:
            self._flush_everything(core)
        else:
            self.forget([core], [key for key in self._numbers if self._vcpus[key[0]].unit(key) in state.tags])
        state.tags.clear()

    def _flush_everything(self, core: int) -> None:
        self.flusher.forget(core, core + 1, _ALL, LINEAR | NESTED)

    def _flush(self, cores: Collection[int], asids: Iterable[int], kinds: int) -> None:
        """Forget what cores keep of one kind of some asids; those that never ran them have nothing to forget."""
        gone = {(kinds, asid): self._kept[kinds, asid] for asid in asids if (kinds, asid) in self._kept}
        keepers = {core for kept in gone.values() for core in kept if core in cores}
        for _, asid in gone if keepers else ():
            self._gone[asid] = True
        for core in keepers:
            self.flusher.forget(core, core + 1, self._gone, kinds)
            for each in gone.keys() - self._states[core].running:
                gone[each].discard(core)
        for _, asid in gone if keepers else ():
            self._gone[asid] = False
        if kinds == LINEAR:
            self.flusher.forget_steps(cores)


class Spaces:
    """One vCPU's address spaces; it is in one of them. Nothing happens on cores before `enter`."""

    def __init__(
        self,
        host: Tags,
        registers: NDArray[Any],
        vcpu: int,
        nested: int,
        *,
        tags: Kind | None,
        apart: Apart | None,
        kernel: Pages | None = None,
    ) -> None:
        self.tags = tags
        self.apart = apart
        self.kernel = kernel
        self.kernel_apart = 0  # what register `apart` is while the kernel runs
        self.space = 0
        self.core = NOWHERE
        self.vcpu = vcpu
        self.nested = nested
        self._host = host
        self._registers = registers

    def unit(self, key: Key) -> tuple[int, ...]:
        """Return for whom a VPID or ASID is taken when a space runs; empty: for nobody."""
        if self.tags in (None, "none"):
            return ()
        return (key[0], max(key[1], ~key[1])) if self.apart == "tag" else key[:1]

    def become(self, tags: Kind) -> None:
        """Turn the bare program into a VM, whose entries are told from others' by `tags`; what is kept is forgotten."""
        self.flush_nested()
        self.tags = tags
        self.exited()
        if self.core != NOWHERE:
            self._use()

    def enter(self, core: int) -> None:
        """Go to a core: a VM entry; of a bare program, the kernel's switch to it."""
        other = self._host.arrive(core, self.vcpu)
        self.core = core
        if self.tags == "none":
            self._host.flush_untagged(core)
        elif self.tags is None and self.apart is None and other:
            self._host.flush_shared(core)
        self._use()

    def leave(self) -> None:
        """Leave the core: a VM exit."""
        if self.tags == "none" and not self._host.amd:
            self._host.flush_untagged(self.core)
        self.core = NOWHERE

    def exited(self) -> None:
        """Have made a VM exit and come back to the same core; before the clock starts, on none, it forgets nothing."""
        if self.tags == "none" and self.core != NOWHERE:
            self._host.flush_untagged(self.core)

    def untagged(self) -> tuple[NDArray[np.bool_], int]:
        """Return what a VM exit and the entry after it forget, as of `flush.forget`; no kinds of units: nothing."""
        return self._host.untagged() if self.tags == "none" else (_NONE, 0)

    def load(self, space: int, *, keep: bool = False) -> None:
        """Load CR3 with another address space, or the same.

        Parameters
        ----------
        space : int
            Its PCID, or any number that stands for it, as the host-physical address of a shadow root.
        keep : bool, optional
            Keep what the core has of the new space (bit 63), where spaces are told apart.
        """
        self.space = space if self.apart else 0
        if self.core != NOWHERE:
            self._use()
        if not (keep and self.apart):
            self.flush()

    def invalidate(self, first: int, last: int, space: int | None = None) -> None:
        """INVLPG of each page that touches [first, last]; INVPCID or INVVPID by address of a `space` not current."""
        key = self._key(space)
        number = self._host._numbers.get(key)
        if number is not None:
            if self.core != NOWHERE:
                self._host.flusher.invalidate(self.core, number, first, last)
            self._host.stale(self.core, [key])

    def flush(self, space: int | None = None) -> None:
        """Forget a space, the current one unless said otherwise: a reload of CR3, INVPCID or INVVPID single-context."""
        self._forget([self._key(space), *([self.of_kernel(space)] if self.kernel == "own" else [])])

    def forgot(self) -> None:
        """Have forgotten the current space on this core; the others have not."""
        self._host.stale(self.core, [self._key(None)])

    def flush_all(self) -> None:
        """Forget all spaces of the vCPU: INVPCID all-context, or INVVPID single-context."""
        self._forget(self._host.of(self.vcpu))

    def flush_nested(self) -> None:
        """Forget guest-physical and combined mappings, on every core: INVEPT single-context, or a flush of the ASID."""
        self._host.flush_nested([self.vcpu], [self.nested])

    def release(self, space: int) -> None:
        """Give up a space, whose entries nobody can hit from now on; they stay until others need their place."""
        if self._key(space) == self._key(None):
            self.flush()
        else:
            self._host.release((self.vcpu, space))
            if self.kernel == "own":
                self._host.release(self.of_kernel(space))

    def of_kernel(self, space: int | None = None) -> Key:
        """Return the key under which the TLBs keep the kernel's pages of a space."""
        return self.vcpu, ~0 if self.kernel == "global" else ~self._key(space)[1]

    def close(self) -> None:
        """Forget everything on every core: the VM has ended."""
        self.flush_nested()
        for key in self._host.of(self.vcpu):
            self._host.release(key)

    def _key(self, space: int | None) -> Key:
        return self.vcpu, self.space if space is None or not self.apart else space

    def _use(self) -> None:
        asid = self._host.use(self.core, (self.vcpu, self.space))
        self._registers["asid"] = asid << ASID_SHIFT
        if self.kernel:
            self.kernel_apart = (self._host.use(self.core, self.of_kernel()) - asid) << ASID_SHIFT

    def _forget(self, keys: list[Key]) -> None:
        if self.core != NOWHERE:
            self._host.forget([self.core], keys)
        self._host.stale(self.core, keys)
