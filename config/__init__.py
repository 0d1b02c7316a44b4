"""Settings: the configuration file and its typed loader, logging, and, in `domain`, the words that all parts share.

The lowest floor: it imports no other package of ours.
"""
