/* Limits and fixed numbers. The configured map sizes, MAX_FRONTENDS, MAX_BACKENDS and MAX_AFFINITY, come in by -D
 * (bpf/build.py). */
#pragma once

/* The maps of these sizes use memory only for the rows that they hold, so they are large even in a small configuration.
 * They may hold more rows than `frontends` and `backends`: a policy keeps its counters while it has no backend, and a
 * Pod that is not ready keeps its row in `backend_cgroups`. */
#define AT_LEAST_16384(size) ((size) > 16384 ? (size) : 16384)
#define MAX_POLICIES AT_LEAST_16384(MAX_FRONTENDS)
/* During a change, the map holds a frontend's former backends beside its new ones. */
#define MAX_MEMBERS (2 * MAX_BACKENDS)
/* One row for each pair of policy and Pod cgroup. */
#define MAX_BACKEND_CGROUPS AT_LEAST_16384(MAX_BACKENDS)
/* How many levels of cgroups we search for the caller's Pod, counted from the level that the frontend row names. */
#define MAX_CGROUP_LEVELS 8
/* 2^64 divided by the golden ratio. The top bits of its product with a key depend on all bits of the key (Knuth, The
 * Art of Computer Programming, 6.4: multiplicative hashing). */
#define HASH_FACTOR 0x9e3779b97f4a7c15ULL

/* Watchers can read back the last MAX_DECISIONS decisions; it must be a power of two. The programs record fewer than
 * that in a second, so a watcher that reads several times a second misses none of them. */
#define MAX_DECISIONS 1024
#define DECISIONS_PER_SECOND 800

#define NANOSECONDS 1000000000ULL
#define SYS_PROCEED 1
#define AF_INET 2
#define AF_INET6 10
#define IPPROTO_TCP 6
#define IPPROTO_MPTCP 262
#define AF_INET_MAPPED 0x0000ffff /* third word of ::ffff:a.b.c.d, host order */

/* From the kernel's uapi/asm-generic/errno-base.h, which is not on BCC's include path. */
#define ENOENT 2
#define EAGAIN 11
#define ENOMEM 12
#define PASSED_BASE 100 /* greater than all of these */
