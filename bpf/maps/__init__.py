"""The kernel maps: rows as Python values (`rows`) and as bytes (`packing`), one map (`kernel_map`), all maps of a build
(`pinned_maps`).

May import: `bpf` itself, `config`.
"""
