"""Benchmarks: speed against the C yardstick, fault storms, start-up, memory. `python -m benchmarks`."""
