"""What operators see of a process: the log, `/status`, `/readyz`, `/healthz` and metrics.

May import: `actors.framework`, `actors.messages`, `bpf` itself, `bpf.maps`, `bpf.cgroups`, `bpf.lifecycle`,
`bpf.monitoring`, `k8s.objects`, `k8s.api`, `k8s.sources`, `k8s.status`, `config`.
"""
