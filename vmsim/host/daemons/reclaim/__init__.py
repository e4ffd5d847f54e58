"""A reclaimer that takes pages of living VMs at a steady rate."""
