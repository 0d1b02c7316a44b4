"""The election of the controller's process that leads, over a Lease, and the other installations in the cluster.

May import: `k8s.objects`, `k8s.api`, `config`.
"""
