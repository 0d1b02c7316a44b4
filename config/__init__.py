"""Settings: the configuration file and its typed loader, logging and back-off; in `domain`, the words that all parts
share; in `input`, how untrusted text is read.

The lowest layer: it imports no other package of ours.
"""
