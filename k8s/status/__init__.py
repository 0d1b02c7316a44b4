"""What the controller writes, policy status and Events, and the election that decides which of its processes may.

May import: `k8s.objects`, `k8s.api`, `config`.
"""
