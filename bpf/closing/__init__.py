"""The closer: a process beside the agent that closes sockets whose backend is out of use (rule P20).

It reads what MapWriter has written into the maps of the attached build, finds the sockets in every network namespace of
the node, and closes them through sock_diag (docs/decisions/0018-closer.md).

`closer` is the loop; `schedule` and `staleness` decide; `installed` has the maps; `sock_diag` speaks to the kernel.

May import: `bpf` itself, `bpf.maps`, `bpf.lifecycle`, `config`.
"""
