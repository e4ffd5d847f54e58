"""Frames of a physical address space: the buddy allocator, frame records, stacks of frames."""
