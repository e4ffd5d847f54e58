"""The host kernel: frames, guest memory, swap, page pools, scheduler, shootdowns, and its daemons."""
