/* All maps. The MapWriter actor writes their rows, unless a comment names another writer. Every map is pinned in the
 * directory of its build; only the socket storages have a directory of their own, which builds share
 * (bpf/lifecycle/pins.py). */
#pragma once

/* 0 -> which calls may be for a frontend. Every call on the node reads it. */
BPF_TABLE("array", u32, struct filter_row, filter, 1);
/* frontend -> where its backends are, and how its policy treats calls. */
BPF_TABLE("hash", struct frontend_key, struct frontend_row, frontends, MAX_FRONTENDS);
/* index -> backend. A frontend row names a range of indices. */
BPF_TABLE("array", u32, struct backend_row, backends, MAX_BACKENDS);
/* (frontend, backend) -> 1 for each backend in use. It shows whether a socket or client can keep its backend. */
BPF_F_TABLE("hash", struct member_key, u32, members, MAX_MEMBERS, BPF_F_NO_PREALLOC);
/* (policy, Pod cgroup) -> 1: the policy does not redirect the processes of that cgroup (P12). */
BPF_F_TABLE("hash", struct backend_cgroup_key, u32, backend_cgroups, MAX_BACKEND_CGROUPS, BPF_F_NO_PREALLOC);
/* policy -> second << 32 | calls in that second (P11). The programs count; MapWriter makes and removes rows. */
BPF_F_TABLE("hash", u64, u64, windows, MAX_POLICIES, BPF_F_NO_PREALLOC);
/* (frontend, client) -> backend (P13). The programs write; MapWriter removes expired rows. It is no LRU hash: when
 * the map is full, a new client gets no affinity, and no other client loses its own. */
BPF_TABLE("hash", struct affinity_key, struct affinity_row, affinity, MAX_AFFINITY);
/* policy -> counters. The programs count; MapWriter makes and removes rows. */
BPF_F_TABLE("percpu_hash", u64, struct counters_row, counters, MAX_POLICIES, BPF_F_NO_PREALLOC);
/* policy -> name and uid of the policy that the counters belong to, for people and for the next agent. The programs
 * do not read it. It has a row for each row in `counters`. */
BPF_F_TABLE("hash", u64, struct policy_row, policies, MAX_POLICIES, BPF_F_NO_PREALLOC);
/* 0 -> what the programs need to know of the agent. */
BPF_TABLE("array", u32, struct config_row, config, 1);
/* 0 -> id of the agent's own cgroup, whose processes are never redirected (P17); 0 when it is unknown.
 * bpf/lifecycle/startup.py writes it. It is not a part of `config` because a starting agent also writes it for other
 * builds, whose programs stay attached until its own are. */
BPF_TABLE("array", u32, u64, agent_cgroup, 1);
/* 0 -> ns, CLOCK_MONOTONIC: the time as of which the lease was last renewed. */
BPF_TABLE("array", u32, u64, lease, 1);
/* The next three tell the closer which sockets are stale; the programs do not read them.
 * address -> 1 for each Pod of this node that is or was a backend, as long as the Pod is there. */
BPF_F_TABLE("hash", struct address_key, u32, backend_pods, AT_LEAST_16384(MAX_BACKENDS), BPF_F_NO_PREALLOC);
/* (frontend, backend) -> 1 for each backend that a policy in force selects and that is not usable. */
BPF_F_TABLE("hash", struct member_key, u32, unusable, MAX_MEMBERS, BPF_F_NO_PREALLOC);
/* 0 -> a number that grows with every change of these two maps, so that the closer need not read them all the time. */
BPF_TABLE("array", u32, u64, usage_revision, 1);
/* frontend -> how many sockets were closed because their backend was out of use. The closer writes. */
BPF_F_TABLE("hash", struct frontend_key, u64, stale_closed, MAX_POLICIES, BPF_F_NO_PREALLOC);
/* 0 -> that the closer is alive, and what keeps it from working. The closer writes. */
BPF_TABLE("array", u32, struct closer_row, closer, 1);
/* 0 -> whether somebody watches, and how many decisions were recorded. Watchers map it into their memory, and write
 * `until`. */
BPF_F_TABLE("array", u32, struct watch_row, watch, 1, BPF_F_MMAPABLE);
/* number of a decision % MAX_DECISIONS -> the decision. The programs write while somebody watches; any number of
 * watchers map it into their memory and read, each at its own pace. */
BPF_F_TABLE("array", u32, struct decision_row, decisions, MAX_DECISIONS, BPF_F_MMAPABLE);
/* socket -> its first pair of frontend and backend; its further pairs. The programs write. */
BPF_SK_STORAGE(socket_state, struct socket_state);
BPF_SK_STORAGE(socket_more, struct socket_more);

/* The loader opens a map under the descriptor NAME_FD (bpf/build.py), and when a program is loaded the kernel
 * replaces the number by the map. ONLY_ROW gives the value of a map of one row, without a look-up and its key.
 * SHARED gives the socket storage that all builds share, whichever build has made it. OWN_PROGRAM is an array with one
 * program, the one that uses it. */
#define ONLY_ROW(map) ((void *)bpf_pseudo_fd(BPF_PSEUDO_MAP_VALUE, map##_FD))
#define SHARED(map) ((void *)bpf_pseudo_fd(BPF_PSEUDO_MAP_FD, map##_FD))
static void (*bpf_tail_call)(struct bpf_sock_addr *ctx, void *programs, u32 i) = (void *)BPF_FUNC_tail_call;
#define OWN_PROGRAM ((void *)bpf_pseudo_fd(BPF_PSEUDO_MAP_FD, OWN_PROGRAM_FD))
