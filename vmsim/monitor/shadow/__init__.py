"""Shadow paging."""
