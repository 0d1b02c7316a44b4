"""The closer: a process beside the agent that closes sockets whose backend is out of use (rule P20).

It reads what MapWriter has written into the maps of the attached build, finds the sockets in every network namespace of
the node, and closes them through sock_diag. Why it works that way: docs/decisions/0018-closer.md.

May import: `bpf`, `config` and `config.domain`.
"""
