"""The host kernel: frames, watermarks, page pools, scheduler."""
