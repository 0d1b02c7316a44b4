"""From decisions to kernel rows. MapWriter owns the rows that follow from policies, and the lease. QosTicker and
AffinityAger tell it when to renew the lease and when to sweep the affinity rows.

May import: `actors.framework`, `actors.messages`, `bpf` itself, `bpf.maps`, `bpf.cgroups`, `bpf.lifecycle`,
`config`.
"""
