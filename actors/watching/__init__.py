"""Watchers: each reads one source of objects, and reports what changes in it to ConflictResolver.

May import: `actors.framework`, `actors.messages`, `k8s.objects`, `k8s.api`, `k8s.sources`, `k8s.status`, `config`.
"""
