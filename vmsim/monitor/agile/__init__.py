"""Agile paging."""
