"""The invariants that hold at every boundary of a simulation."""
