"""Hypervisors: what happens on an exit, one folder for each paging mode."""
