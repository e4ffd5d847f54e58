"""What a monitor can do besides its paging mode."""
