"""Turning sweeps into statements: each metric is one function of a tidy frame."""
