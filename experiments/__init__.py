"""Experiments: each folder has a sweep and its figure. ``python -m experiments`` makes what is out of date."""
