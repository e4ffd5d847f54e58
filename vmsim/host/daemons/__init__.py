"""What a host does on its own account: one file for each daemon."""
