"""What the kernel does with one call, decided from the installed rows in the order in which the programs check.

`call` is what the user asks about; `checks` has the order; `facts` is what the checks need; `installed` and `clients`
read it from the kernel.

May import: `bpf` itself, `bpf.maps`, `bpf.cgroups`, `bpf.lifecycle`, `config`.
"""
