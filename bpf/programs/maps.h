/* Every map. The MapWriter actor writes all rows, but where a comment says that the programs do. All are pinned: the socket
 * storages in a directory of their own, since all builds share them (bpf/build.py), the others in their build's. */
#pragma once

/* 0 -> which calls may be for a frontend. Read at every call on the node. */
BPF_TABLE("array", u32, struct filter_row, filter, 1);
/* frontend -> its row. */
BPF_TABLE("hash", struct frontend_key, struct frontend_row, frontends, MAX_FRONTENDS);
/* index -> backend; a frontend row names `count` in a row. */
BPF_TABLE("array", u32, struct backend_row, backends, MAX_BACKENDS);
/* (frontend, backend) -> 1 for each backend in use, so that a socket or client that has one can keep it. */
BPF_F_TABLE("hash", struct member_key, u32, members, MAX_MEMBERS, BPF_F_NO_PREALLOC);
/* (Pod cgroup, service id) -> 1: its processes are not redirected by that policy (P12). */
BPF_F_TABLE("hash", struct backend_cgroup_key, u32, backend_cgroups, MAX_BACKEND_CGROUPS, BPF_F_NO_PREALLOC);
/* service id -> second << 32 | calls in it. Programs write; MapWriter makes and removes rows (P11). */
BPF_F_TABLE("hash", u64, u64, windows, MAX_POLICIES, BPF_F_NO_PREALLOC);
/* client and frontend -> backend (P13). Programs write; MapWriter sweeps. A plain hash: a full map costs a new client its
 * affinity, an LRU one would cost it an old client's. */
BPF_TABLE("hash", struct affinity_key, struct affinity_row, affinity, MAX_AFFINITY);
/* service id -> counters. Programs count; MapWriter makes and removes rows. */
BPF_F_TABLE("percpu_hash", u64, struct counters_row, counters, MAX_POLICIES, BPF_F_NO_PREALLOC);
/* service id -> whose counters they are, for people and for the next agent; the programs do not read it. A row is there
 * for as long as the one in `counters`. */
BPF_F_TABLE("hash", u64, struct policy_row, policies, MAX_POLICIES, BPF_F_NO_PREALLOC);
/* 0 -> what the programs are told of the agent. */
BPF_TABLE("array", u32, struct config_row, config, 1);
/* 0 -> id of the agent's own cgroup, whose processes are never redirected (P17); 0 when it is not known. A map of its own:
 * a starting agent writes it for the programs of other builds too, which are attached until its own are. */
BPF_TABLE("array", u32, u64, agent_cgroup, 1);
/* 0 -> ns, CLOCK_MONOTONIC, at which the agent was last known to be well. */
BPF_TABLE("array", u32, u64, lease, 1);
/* socket -> its first pair of frontend and backend, and its further ones. Programs write. */
BPF_SK_STORAGE(socket_state, struct socket_state);
BPF_SK_STORAGE(socket_more, struct socket_more);

/* The loader holds a map's descriptor under the number NAME_FD (bpf/build.py), and the kernel puts the map in its place:
 * for a map of one row its value, without a look-up and the key that it needs; for a socket storage the shared one,
 * whichever build made it. */
#define ONLY_ROW(map) ((void *)bpf_pseudo_fd(BPF_PSEUDO_MAP_VALUE, map##_FD))
#define SHARED(map) ((void *)bpf_pseudo_fd(BPF_PSEUDO_MAP_FD, map##_FD))
