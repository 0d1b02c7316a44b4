/* Keys and values of the maps. bpf/rows.py packs and unpacks them; a kernel test compares the two.
 * Addresses and ports are in network order everywhere, IPv4 as mapped IPv6 (::ffff:a.b.c.d). */
#pragma once

struct frontend_key {
    __be32 address[4];
    __be16 port;
    u8 protocol;
    u8 zero;
};
_Static_assert(sizeof(struct frontend_key) == 20, "frontend_key");

#define FRONTEND_NO_HOST 1 /* processes in the agent's network namespace pass */

/* `generation` is unique for each write and stands at both ends, with the row's own key between them: a hash map hands
 * a freed element to the next writer at once, under the eyes of a program that still reads it. */
struct frontend_row {
    u64 generation;
    __be32 address[4];
    __be16 port;
    u8 protocol;
    u8 flags;
    u32 service_id;
    u32 first; /* index of the first of this generation's rows in `backends` */
    u32 count;
    u32 limit; /* redirects a second of the whole policy, 0: none */
    u32 affinity_seconds; /* 0: no affinity */
    u8 skip_from, skip_to; /* cgroup levels of the policy's Pods; none when from > to */
    u8 zero[6];
    u64 generation_tail;
};
_Static_assert(sizeof(struct frontend_row) == 64, "frontend_row");

struct endpoint {
    __be32 address[4];
    __be16 port;
    u8 zero[6];
};
_Static_assert(sizeof(struct endpoint) == 24, "endpoint");

struct backend_row {
    u64 generation; /* that of the frontend row that names it */
    struct endpoint endpoint;
};
_Static_assert(sizeof(struct backend_row) == 32, "backend_row");

struct affinity_key {
    u64 client_netns; /* cookie */
    struct frontend_key frontend;
    u32 zero;
};
_Static_assert(sizeof(struct affinity_key) == 32, "affinity_key");

struct affinity_row {
    struct endpoint backend;
    u64 last_used; /* ns, CLOCK_MONOTONIC */
};
_Static_assert(sizeof(struct affinity_row) == 32, "affinity_row");

/* Order as in bpf/rows.py PassReason. */
enum pass_reason { PASS_LEASE, PASS_FROM_HOST, PASS_FROM_BACKEND, PASS_QOS, PASS_REASONS };

struct counters_row {
    u64 redirects;
    u64 affinity_hits;
    u64 passes[PASS_REASONS];
};
_Static_assert(sizeof(struct counters_row) == 48, "counters_row");

struct backend_cgroup_key {
    u64 cgroup_id;
    u32 service_id;
    u32 zero;
};
_Static_assert(sizeof(struct backend_cgroup_key) == 16, "backend_cgroup_key");

struct policy_row {
    char name[256];
    u32 limit;
};
_Static_assert(sizeof(struct policy_row) == 260, "policy_row");

struct config_row {
    u64 host_netns; /* cookie of the agent's network namespace */
    u64 lease_ns; /* 0: no lease */
};
_Static_assert(sizeof(struct config_row) == 16, "config_row");

/* What one socket was redirected to. A pair counts while backend_port is not 0. */
struct socket_pair {
    __be32 frontend[4];
    __be32 backend[4];
    __be16 frontend_port;
    __be16 backend_port;
};
struct socket_pairs {
    struct socket_pair pair[SOCKET_PAIRS];
    u64 next; /* 64 bits: only those can be fetched and added with the instructions of every LLVM */
};
_Static_assert(sizeof(struct socket_pairs) == 36 * SOCKET_PAIRS + 8, "socket_pairs");
