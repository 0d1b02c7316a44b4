"""Watchers: each reads one source of objects, and reports what changes in it to ConflictResolver.

May import: `actors.framework`, `actors.messages`, `k8s` (without `k8s.election` and
`k8s.commands`), `config`.
"""
