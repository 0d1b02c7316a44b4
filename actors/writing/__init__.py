"""From decisions to kernel rows. MapWriter owns every row that the programs do not write themselves. QosTicker and
AffinityAger tell it when to renew the lease and when to sweep the affinity rows.

May import: `actors.framework`, `actors.messages`, `bpf.maps`, `bpf.cgroups`, `bpf.lifecycle`, `config`.
"""
