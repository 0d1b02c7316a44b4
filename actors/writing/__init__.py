"""From decisions to kernel rows: MapWriter owns every row that the programs do not write, QosTicker and AffinityAger
say when the lease is renewed and when affinity rows are swept.

May import: `actors.framework`, `actors.messages`, `bpf`, `config`.
"""
