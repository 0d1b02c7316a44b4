"""Commands that read manifests or change the cluster, and need no actors.

May import: `k8s`, `config`.
"""
