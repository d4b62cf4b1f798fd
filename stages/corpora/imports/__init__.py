"""Layouts of speech data that `kiln data import` reads: each is a module with `read`."""
