"""Readers of traces made by other tools: one file per format, each a generator of chunks."""
