"""Watchers: each reads one stream of objects and tells ConflictResolver what happened.

May import: `actors.framework`, `actors.messages`, `k8s`, `config`.
"""
