"""CPU files."""
