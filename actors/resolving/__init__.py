"""From facts to decisions: which policy holds what, and what each one asks of this node.

ConflictResolver is the only actor here. Everything else is pure, but for `subscriptions`, which reads the clock.

May import: `actors.framework`, `actors.messages`, `k8s.objects`, `config`.
"""
