"""DAMON: how often regions of memory are accessed, by samples, and what is done about it."""
