"""What operators see of a process: the log, `/status`, `/readyz`, `/healthz` and metrics.

May import: `actors.framework`, `actors.messages`, `bpf` itself, `bpf.maps`, `bpf.cgroups`, `bpf.lifecycle`,
`bpf.monitoring`, `k8s` (without `k8s.election` and `k8s.commands`), `config`.
"""
