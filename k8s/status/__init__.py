"""What the controller writes: policy status and Events, and which of its processes may.

May import: `k8s.objects`, `k8s.api`, `config`.
"""
