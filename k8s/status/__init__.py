"""What the controller writes: policy status and Events.

May import: `k8s.objects`, `k8s.api`, `config`.
"""
