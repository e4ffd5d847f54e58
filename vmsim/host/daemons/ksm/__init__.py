"""Sharing of equal pages, as Linux's KSM does it (mm/ksm.c, Documentation/admin-guide/mm/ksm.rst)."""
