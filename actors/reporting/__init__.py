"""What people are told: the log, `/status`, `/readyz` and metrics.

May import: `actors.framework`, `actors.messages`, `bpf`, `k8s`, `config`.
"""
