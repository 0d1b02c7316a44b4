"""How a build comes into the kernel and leaves it: `startup` loads or adopts it, `datapath` attaches it, `detaching`
removes everything of ours.

May import: `bpf` itself, `bpf.maps`, `bpf.cgroups`, `config`.
"""
