"""Swap: where pages that a host has taken from its VMs are, how they get there, and how they come back."""
