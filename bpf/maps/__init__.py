"""The kernel maps: their rows as Python values (`rows`) and as bytes (`packing`), one map (`kernel_map`), and all maps of
a build (`pinned_maps`).

May import: `bpf` itself, `config`.
"""
