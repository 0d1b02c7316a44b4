"""Settings: the configuration file and its typed loader, logging, and, in `domain`, the words that all parts share.

The lowest layer: it imports no other package of ours.
"""
