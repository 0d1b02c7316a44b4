"""Watchers: each reads one stream of objects and reports its changes to ConflictResolver.

May import: `actors.framework`, `actors.messages`, `k8s`, `config`.
"""
