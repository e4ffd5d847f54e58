"""What the steps of hardware and of kernels cost on a CPU, in cycles; each has its source in the CPU's file."""

from __future__ import annotations

from pydantic import Field

from vmsim.scenario.types import Cycles, Model

__all__ = ["Cost"]


class Cost(Model):
    """Cycles of software and of exits."""

    vm_exit: Cycles = Field(description="An exit and the entry after it, hardware only.")
    fault_delivery: Cycles = Field(description="Delivering a page fault to a kernel and returning from it.")
    guest_fault: Cycles = Field(description="A guest kernel's handling of a demand-zero fault, zeroing apart.")
    zero_page: Cycles = Field(description="A kernel clears 4 KiB that its caches have.")
    table_page: Cycles = Field(description="Allocating a page-table page, clearing it apart.")
    copy_page: Cycles = Field(description="Copying 4 KiB, as a write to a page shared by fork makes a kernel do.")
    entry_edit: Cycles = Field(description="A kernel's loading and storing one entry in a scan (mprotect).")
    fork_page: Cycles = Field(description="A kernel's fork: one page's entry copied, and the page counted once more.")
    unmap_page: Cycles = Field(description="A kernel unmaps one page and frees it, the flush apart.")
    process_switch: Cycles = Field(description="A guest kernel goes from one process to another.")
    fork: Cycles = Field(description="A guest kernel's fork, page tables apart.")
    exec: Cycles = Field(description="A guest kernel's execve, page tables and the program's file apart.")
    exit: Cycles = Field(description="A guest kernel's ending of a process and its parent's wait, page tables apart.")
    page_fault_exit: Cycles = Field(description="An exit for a page fault, hardware only, without the entry after it.")
    vm_entry: Cycles = Field(description="An entry into a VM, hardware only.")
    guest_walk_level: Cycles = Field(description="Monitor: find and read one entry of a guest's table.")
    inject: Cycles = Field(description="Monitor: hand a page fault to the guest.")
    decode: Cycles = Field(description="Monitor: fetch and decode the instruction that trapped.")
    emulate: Cycles = Field(description="Monitor: carry it out.")
    step_trap_flag: Cycles = Field(description="Monitor: arm and disarm a single step by the trap flag.")
    step_debug_register: Cycles = Field(description="Monitor: the same by a debug register.")
    map_unmap: Cycles = Field(description="Monitor: map a page for a moment, and unmap and invalidate it again.")
    ad_sync: Cycles = Field(description="Monitor: bring A and D of one guest entry up to date.")
    resync_entry: Cycles = Field(description="Monitor: compare one shadow entry with the guest's.")
    shadow_drop: Cycles = Field(description="Monitor: give up one shadow page.")
    software_tlb_hit: Cycles = Field(description="Monitor: a look-up in its own TLB.")
    vkernel_fault: Cycles = Field(description="Vkernel's host: a page fault, delivered, placed and returned from.")
    vkernel_walk_level: Cycles = Field(description="Vkernel's host: find, read and mark one entry of a guest's table.")
    vkernel_reflect: Cycles = Field(description="Vkernel's host: hand a trap to the guest's kernel, and come back.")
    vkernel_call: Cycles = Field(description="Vkernel's host: a system call on an address space, pages apart.")
    vkernel_remove: Cycles = Field(description="Vkernel's host: take one page out of a map.")
    violation_walk: Cycles = Field(description="Monitor: find the faulting gfn's place, walk the nested tables.")
    violation_pool: Cycles = Field(description="Monitor: take a page from its list of free ones.")
    violation_entry: Cycles = Field(description="Monitor: write the nested entry.")
    violation_rmap: Cycles = Field(description="Monitor: add it to the reverse map.")
    violation_resume: Cycles = Field(description="Monitor: dispatch of the exit and the way back to the guest.")
    host_fault: Cycles = Field(description="Host: a page that is not there, allocated and mapped; cleared apart.")
    host_zero: Cycles = Field(description="Host: clear 4 KiB from memory before a VM gets it.")
    host_zap: Cycles = Field(description="Host: take a page from a VM: its entries, the reverse map, and free it.")
    log_page: Cycles = Field(description="Host: clear a page's dirty flag, or protect the page, when the log is read.")
    log_scan: Cycles = Field(description="Host: look at one entry in search of dirty flags.")
    log_entry: Cycles = Field(description="Monitor: take one entry from the page-modification log.")
    grant_fixed: Cycles = Field(description="Host: one grant of pages to a pool.")
    grant_page: Cycles = Field(description="Host: each page of a grant.")
    reclaim_fixed: Cycles = Field(description="Host: one taking of spare pages from a pool.")
    reclaim_page: Cycles = Field(description="Host: each page taken.")
    age_page: Cycles = Field(
        description="Host, or guest kernel: look at one page in search of accesses, and move it in its list."
    )
    swap_page: Cycles = Field(description="Host: the slot, the swap cache and the request of one page, out or in.")
    file_call: Cycles = Field(description="A kernel's system call on a file, pages apart.")
    file_page: Cycles = Field(description="A kernel finds one page in its page cache, or puts it there.")
    pin_page: Cycles = Field(description="Host: pin a page for a device, or unpin it.")
    message: Cycles = Field(description="A message between monitor and host.")
    context_switch: Cycles = Field(description="A pCPU goes from one vCPU to another.")
    ad_assist: Cycles = Field(description="A walk that sets an accessed or dirty bit, over one that need not.")
    ipi_send: Cycles = Field(description="A kernel asks one more processor for work by an interrupt.")
    ipi_latency: Cycles = Field(description="From then to the first instruction of the interrupt's handler.")
    ipi_handle: Cycles = Field(description="Handler of the interrupt: entry, the work, its end, the sender told.")
    line_transfer: Cycles = Field(
        description="A processor writes to a cache line, of a lock, that another has written to last."
    )
    invlpg: Cycles = Field(description="Forgetting one page, or one address space, in such a handler.")
    invlpgb: Cycles = Field(description="A broadcast invalidation, until all processors have made it.")
    balloon_page: Cycles = Field(description="A guest kernel takes a page for its balloon.")
    balloon_message: Cycles = Field(
        description="A message of a balloon's driver: the way to the host's device and back, pages apart."
    )
    balloon_entry: Cycles = Field(description="Host: find the memory behind one entry of such a message.")
    balloon_release: Cycles = Field(description="A guest kernel frees a page of its balloon, with the host's advice.")
    hotplug_message: Cycles = Field(description="A request of a virtio-mem driver: the way to the device and back.")
    hotplug_page: Cycles = Field(description="A guest kernel gives a page that was plugged to its allocator.")
    unplug_page: Cycles = Field(description="A guest kernel isolates a page that is to be unplugged, empty already.")
    bilateral_frame: Cycles = Field(description="Host: change a huge frame's state in a guest's allocator.")
    bilateral_install: Cycles = Field(description="Such a guest asks for memory: to user space and back, but the exit.")
    discard_call: Cycles = Field(description="Host: one call that discards memory (madvise), pages apart.")
    discard_page: Cycles = Field(description="Host: each page that it unmaps and frees in one.")

    @property
    def violation(self) -> int:
        """Cycles of one EPT violation or NPF in the monitor, exit and waiting apart."""
        return (
            self.violation_walk
            + self.violation_pool
            + self.violation_entry
            + self.violation_rmap
            + self.violation_resume
        )

    def zero(self, order: int) -> int:
        """Return the cycles in which a host clears a page of ``2**order`` pages of 4 KiB."""
        return self.host_zero << order
