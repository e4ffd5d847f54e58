"""Huge pages of the host's for its guests: khugepaged (Linux, mm/khugepaged.c)."""
