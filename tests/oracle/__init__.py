"""Slow, obvious twins of the machine in plain Python: dicts, lists and OrderedDicts, written from the manuals."""
