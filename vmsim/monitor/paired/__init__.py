"""Paired page tables, as in Akaros."""
