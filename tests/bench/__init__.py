"""Measurements: `make bench` prints one table, every ratio from one run."""
