"""Experiments that `python -m pymgan.rl2` runs; each returns plain numbers and prints a table."""
