"""Measurements against DESIGN section 10: `make bench` prints one table, every ratio from one run."""
