"""From facts to decisions: which policy holds what, and what each one asks of this node.

ConflictResolver is the one actor here; everything else is pure, and can be tested without it.
May import: `actors.framework`, `actors.messages`, `k8s.objects`, `config`.
"""
