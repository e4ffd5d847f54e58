"""Hosts and VMs put together and run."""
