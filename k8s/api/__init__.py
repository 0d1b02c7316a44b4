"""Access to the API server in raw JSON, over the official client's transport: requests, and lists that are watched.

May import: `k8s.objects`, `config`.
"""
