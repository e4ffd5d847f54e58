"""From tables to tables, and from tables to figures."""
