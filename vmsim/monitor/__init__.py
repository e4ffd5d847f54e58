"""Hypervisors: what happens on an exit, one file per paging mode."""
