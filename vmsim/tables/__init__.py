"""What software does to page tables, compiled."""
