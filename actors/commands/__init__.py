"""Commands that tell people what the agent of this machine does: they read its `/status`, the kernel and the source.

They run in processes of their own, have no actors, and change nothing that is installed. `detached` stands in for an
agent that was removed.

May import: `actors.framework`, `bpf` (without `bpf.closing`), `k8s.commands`, `k8s.api`, `k8s.objects`, `config`.
"""
