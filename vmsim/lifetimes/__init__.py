"""When VMs come and go: tables of events, and those that clouds have published, made into scenarios."""

from __future__ import annotations

from vmsim.lifetimes.convert import arrivals

__all__ = ["arrivals"]
