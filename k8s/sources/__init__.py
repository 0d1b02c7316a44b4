"""Where objects come from: the API server, or a directory of manifests. Both kinds of source deliver the same events.

May import: `k8s.objects`, `k8s.api`, `config`.
"""
