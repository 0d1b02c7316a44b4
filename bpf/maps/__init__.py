"""The kernel maps: rows as Python values (`rows`) and as bytes (`packing`), one map (`kernel_map`), all maps of a build
(`pinned_maps`); in words, what the closer's row says (`closer_faults`).

May import: `bpf` itself, `config`.
"""
