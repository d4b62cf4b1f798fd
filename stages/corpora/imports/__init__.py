"""Layouts of speech data that `python -m stages data import` reads: each is a module with `read`."""
