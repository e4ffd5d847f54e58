"""A shadow while a dirty log is kept of the VM, or its large pages are not executable."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vmsim.contracts import Vcpu
from vmsim.machine.formats import PAGE_SHIFT
from vmsim.monitor.features.chain import Featured
from vmsim.monitor.features.nx_recovery import NxRecovery
from vmsim.monitor.features.protect_log import ProtectLog
from vmsim.monitor.shadow.account import Account
from vmsim.monitor.shadow.ranges import recover_split
from vmsim.monitor.shadow.records import ShadowTables
from vmsim.monitor.shadow.second import ShadowEntries
from vmsim.scenario.dirty_log import DirtyLogSpec
from vmsim.scenario.nx_split import NxSplitSpec

__all__ = ["FeaturedShadow"]


class FeaturedShadow(ShadowEntries, Featured, Account):
    """The part of a shadow monitor that its features are of: a dirty log, and a worker that recovers split pages."""

    tables: ShadowTables

    def make_log(self, spec: DirtyLogSpec) -> ProtectLog:
        """Return the log of what the VM writes to."""
        return ProtectLog(self, spec, self.spaces.flush_all, self.tables.dirty)

    def forbid_execution(self, spec: NxSplitSpec, flush: Callable[[], None] | None = None) -> None:
        """Have large pages not be executable, and be split where code is fetched from them."""
        self.state["nx"] = 1
        self.add(ShadowNxRecovery(self, spec, flush or self.spaces.flush_all))

    def split_pages(self) -> list[int]:
        """Return its pages that map parts of large pages because these were split, the first of them longest ago."""
        split = self.pages["split"] * (self.pages["level"] > 0)
        return [int(page) for page in np.argsort(split, kind="stable") if split[page]]

    def recover_split(self, pages: list[int]) -> int:
        """Take such pages away; while a log is kept they stay, small for good (`kvm_recover_nx_huge_pages`)."""
        if self.state["logging"][0]:
            self.pages["split"][pages] = 0
            return 0
        with self.by_host():
            for page in pages:
                recover_split(self.of[0], page)
        return len(pages)

    def log_writes(self, *, on: bool) -> int:
        """Begin or end to let only pages of the log be written to; return the large pages that come back whole."""
        self.state["logging"] = on
        return 0 if on else self.recover()

    def table_moved(self, old: int, new: int) -> None:
        """Have a shadow page be in the frame that it has moved to."""
        self.pages["hpa"][(self.pages["hpa"] == old << PAGE_SHIFT) & (self.pages["level"] > 0)] = new << PAGE_SHIFT

    def is_guarded(self, gfn: int) -> bool:
        """Return whether a frame is shadowed as a table that is in step."""
        page = int(self.gfns["tables"][gfn]) - 1
        while page >= 0:
            if not self.pages["unsync"][page]:
                return True
            page = int(self.pages["next"][page]) - 1
        return False

    def exited(self, vcpu: Vcpu) -> None:
        """Forget what a VM exit makes the processor forget."""
        vcpu.spaces.exited()


class ShadowNxRecovery(NxRecovery):
    """The worker that recovers pages of a shadow; its exits split them."""

    tdp: FeaturedShadow

    def split_pages(self) -> list[int]:
        """Return the shadow pages that map parts of split pages, in the order in which these were split."""
        return self.tdp.split_pages()

    def clear(self, pages: list[int]) -> int:
        """Take some of them away."""
        return self.tdp.recover_split(pages)
