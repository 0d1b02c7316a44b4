"""What operators see of a process: the log, `/status`, `/readyz`, `/healthz` and metrics.

May import: `actors.framework`, `actors.messages`, `bpf`, `bpf.monitoring`, `k8s`, `config`.
"""
