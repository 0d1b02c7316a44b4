/* Keys and values of the maps, except those of the socket storages (sockets.h); and redirect_query, which is in no map.
 * bpf/maps/packing.py packs and unpacks them, and tests/kernel/test_rows.py compares the two.
 *
 * Addresses and ports are always in network order, IPv4 as mapped IPv6 (::ffff:a.b.c.d).
 *
 * Whatever a program puts on its stack consists of words of eight bytes. Without CAP_PERFMON the verifier inserts a
 * barrier of some 8 ns after each store to the stack, so there should be few; and up to kernel 6.8 it refuses a
 * program that overwrites a part of a word. */
#pragma once

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "words are built from their parts in this order");

struct frontend_key {
    __be64 address[2];
    u64 port_protocol; /* port in network order, protocol << 16 */
};
_Static_assert(sizeof(struct frontend_key) == 24, "frontend_key");

#define FRONTEND_NO_HOST 1 /* processes in the agent's network namespace pass */
#define FRONTEND_SHADOW 2 /* every call passes; those that would be redirected are counted (P21) */

/* Every write of a row has a new generation. It stands at both ends of the row, and the row repeats its own key: a
 * hash map gives a freed element to the next writer at once, while a program may still be reading it. From the two
 * generations and the key, the program learns whether that has happened; on processors that may read and write words
 * in another order, it learns it from the seal (lib_order.c). */
struct frontend_row {
    u64 generation;
    struct frontend_key key;
    u64 backends_generation; /* of its rows in `backends`: its own, or an earlier one's if it has left them in place */
    u32 policy_id;
    u32 first; /* index in `backends` of its first row there */
    u32 count;
    u32 limit; /* redirects per second of the whole policy, 0: no limit */
    u32 affinity_seconds; /* 0: no affinity */
    u8 flags;
    u8 skip_from, skip_to; /* cgroup levels at which to look for the policy's Pods, whose calls pass; from > to: none */
    u8 percentage; /* of clients that are redirected, 1 to 100 */
    u64 cgroup_bits; /* one for each of the policy's rows in `backend_cgroups`: the low six bits of the cgroup's id */
    u64 generation_tail;
    u64 seal;
};
_Static_assert(sizeof(struct frontend_row) == 88, "frontend_row");

struct endpoint {
    __be64 address[2];
    u64 port; /* two bytes in network order, then zeros */
};
_Static_assert(sizeof(struct endpoint) == 24, "endpoint");

struct backend_row {
    u64 generation; /* `backends_generation` of the frontend row that names it */
    struct endpoint endpoint;
    u64 seal;
};
_Static_assert(sizeof(struct backend_row) == 40, "backend_row");

struct affinity_key {
    struct frontend_key frontend;
    u64 client_netns; /* cookie */
};
_Static_assert(sizeof(struct affinity_key) == 32, "affinity_key");

/* `generation` is that of the frontend row by which the backend was last known to be in use. It stands at both ends, as
 * in a frontend row. The seal is of the words before `last_used`, which changes in place. */
struct affinity_row {
    u64 generation;
    struct endpoint backend;
    u64 last_used; /* ns, CLOCK_MONOTONIC */
    u64 generation_tail;
    u64 seal;
};
_Static_assert(sizeof(struct affinity_row) == 56, "affinity_row");

/* Of `members` (the frontend uses the backend) and of `unusable` (the backend is not usable). */
struct member_key {
    struct frontend_key frontend;
    struct endpoint backend;
};
_Static_assert(sizeof(struct member_key) == 48, "member_key");

/* Two sets of bits, for all frontends and backends: their ports, and 16 bits mixed from address, port and protocol. */
struct filter_row {
    u64 ports[65536 / 64];
    u64 frontends[65536 / 64];
};
_Static_assert(sizeof(struct filter_row) == 16384, "filter_row");

/* Why a call passed. In the order of bpf/maps/rows.py PassReason. */
enum pass_reason {
    PASS_LEASE,
    PASS_FROM_HOST,
    PASS_FROM_BACKEND,
    PASS_QOS,
    PASS_BOUND, /* the socket is bound to a device, whose network may not know the Pods */
    PASS_NO_MEMORY, /* there was no memory to record the way back */
    PASS_SHADOW, /* the policy is in mode Shadow, and would have redirected the call */
    PASS_PERCENTAGE, /* the client is not among those that the policy redirects */
    PASS_REASONS
};

struct counters_row {
    u64 redirects;
    u64 affinity_hits;
    u64 passes[PASS_REASONS];
};
_Static_assert(sizeof(struct counters_row) == 80, "counters_row");

struct backend_cgroup_key {
    u64 policy_id;
    u64 cgroup_id;
};
_Static_assert(sizeof(struct backend_cgroup_key) == 16, "backend_cgroup_key");

/* The policy that the counters belong to. */
struct policy_row {
    char name[256];
    u64 uid; /* digest of metadata.uid, 0: the object has none */
    u32 limit; /* as in its frontend rows */
    u32 in_force; /* 0: the policy has no rows but its counters and this one */
};
_Static_assert(sizeof(struct policy_row) == 272, "policy_row");

struct config_row {
    u64 host_netns; /* cookie of the agent's network namespace */
    u64 lease_ns; /* 0: no lease */
};
_Static_assert(sizeof(struct config_row) == 16, "config_row");

/* The closer's question to find_redirect: the addresses of a connected socket. The answer is the frontend that the
 * socket's program called. */
struct redirect_query {
    struct frontend_key peer;
    struct endpoint local;
    struct endpoint frontend; /* the answer */
};
_Static_assert(sizeof(struct redirect_query) == 72, "redirect_query");

/* A Pod's address. */
struct address_key {
    __be64 address[2];
};
_Static_assert(sizeof(struct address_key) == 16, "address_key");

/* What the closer reports about itself. */
struct closer_row {
    u64 alive_at; /* ns, CLOCK_MONOTONIC; 0: no closer has run yet */
    u64 fault; /* as in bpf/maps/rows.py CloserFault */
};
_Static_assert(sizeof(struct closer_row) == 16, "closer_row");

/* The hooks of calls that are decided about. In the order of bpf/maps/rows.py DECIDING_HOOKS. */
enum calling_hook { CONNECT4, CONNECT6, SENDMSG4, SENDMSG6 };

/* Whether somebody watches, and what the programs have recorded so far. */
struct watch_row {
    u64 until; /* ns, CLOCK_MONOTONIC: somebody watches until then; 0: nobody does */
    u64 window; /* as in `windows`: how many decisions were recorded in the present second */
    u64 recorded; /* number of the last decision; the first is 1 */
    u64 dropped; /* how many were not recorded, since there were too many in their second */
};
_Static_assert(sizeof(struct watch_row) == 32, "watch_row");

/* What the programs decided about one call. `number` is 0 while the row is written; a reader compares it before and
 * after. */
struct decision_row {
    u64 number;
    u64 decided_at; /* ns, CLOCK_MONOTONIC */
    struct frontend_key frontend;
    struct endpoint target; /* where the call goes: a backend, or the frontend when it passes */
    u64 client_netns; /* cookie */
    u64 cgroup_id; /* the caller's own */
    u64 thread_and_process; /* thread id, process id << 32, as the node's pid namespace has them */
    u32 policy_id; /* 0: the frontend's row was removed meanwhile */
    u16 reason; /* 0 for a redirect, else enum pass_reason + 1 */
    u16 hook; /* enum calling_hook */
};
_Static_assert(sizeof(struct decision_row) == 96, "decision_row");
