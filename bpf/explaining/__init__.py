"""What the kernel does with one call, decided from the installed rows in the order in which the programs check.

`checks` has that order; `facts` says what it needs; `installed` and `clients` read it from the kernel.

May import: `bpf`, `config` and `config.domain`.
"""
