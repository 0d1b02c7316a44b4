"""What any program of actors needs, and what knows nothing about policies: actors, supervision, HTTP, signals, rates.

May import: `config.backoff`, and no other package of ours.
"""
