"""Commands that work on manifests or on the cluster, and need no actors.

May import: `k8s`, `config`.
"""
