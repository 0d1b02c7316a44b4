"""What any program made of actors needs: actors, supervision, HTTP, signals, limits on rates. It knows no policies.

May import: `config.backoff`, and no other package of ours.
"""
