"""The kernel maps: rows as Python values (`rows`) and as bytes (`packing`), one map (`kernel_map`), all maps of a build
(`pinned_maps`). Beside them the lease's age (`lease`), and what the closer's faults mean (`closer_faults`).

May import: `bpf` itself, `config`.
"""
