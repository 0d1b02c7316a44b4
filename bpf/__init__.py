"""The kernel side: the programs (C, in `programs/`); compiling, loading and attaching them; their maps and rows.

| to do | modules |
|---|---|
| prepare the kernel at the agent's start | `startup`, with `probes`, `bpffs`, `pins`, `build`, `loader`, `carry_over` |
| attach, see what is attached, detach | `datapath`, `attaching`, `attachments`, `detaching` |
| read and write rows | `maps` (typed), `rows` (values), `packing` (bytes), `kernel_map` (one map) |
| find cgroups and namespaces | `cgroups`, `pod_cgroups`, `container_cgroups`, `coverage`, `mounts`, `netns` |
| answer the commands `inspect` and `doctor` | `inspect`, `tables`, `trial` |
| system calls | `libbpf` |

The sub-packages are what `run.py closer`, `explain` and `monitor` need beyond that.

May import: `config`.
"""
