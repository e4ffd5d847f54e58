"""A package beside vmsim: a paging mode, a kind of workload and a CPU file, registered by entry points."""
