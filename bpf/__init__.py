"""The kernel side: the programs (C, in `programs/`), and what compiles, loads, attaches, fills and reads them.

| to do | package |
|---|---|
| read and write rows of the maps | `maps` |
| find cgroups: the node's, a Pod's, a container's | `cgroups` |
| load a build at the agent's start, attach it, see what is attached, detach | `lifecycle` |
| answer the commands `inspect` and `doctor` | `inspecting` |
| close stale sockets; explain a call; show decisions as they happen | `closing`, `explaining`, `monitoring` |

The modules here are what these share: what a build is, libbpf, hand-written instructions, mounts, network namespaces.

May import: `config`.
"""
