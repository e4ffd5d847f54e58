"""Policies of the host's daemons, one file each."""
