"""Measurements. `make bench` prints one table; each ratio in it comes from one run."""
