"""Guest kernels: address spaces, faults, page-table edits."""
