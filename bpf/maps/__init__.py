"""The kernel maps: rows as Python values (`rows`) and as bytes (`packing`), bits that the programs compute as well
(`hashes`), one map (`kernel_map`), the maps of a build (`pinned_maps`). Beside them the lease's age (`lease`), and what
the closer's faults mean (`closer_faults`).

May import: `bpf` itself, `config`.
"""
