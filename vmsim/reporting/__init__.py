"""A run, a comparison or a sweep as one HTML page that needs nothing else."""

from __future__ import annotations
