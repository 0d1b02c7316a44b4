"""Whether the backend Pods serve, beyond what the API says. Each actor here hears which Pods policies select, and tells
the resolver what it finds.

May import: `actors.framework`, `actors.messages`, `bpf`, `config`.
"""
