"""What any program of actors needs, and what knows nothing of policies: actors, supervision, HTTP, stop signals, rates.

May import: `config.backoff`, and no other package of ours.
"""
