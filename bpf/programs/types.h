/* Keys and values of the maps. bpf/rows.py packs and unpacks them; a kernel test compares the two.
 * Addresses and ports are in network order everywhere, IPv4 as mapped IPv6 (::ffff:a.b.c.d).
 *
 * What a program puts on its stack is made of words of eight bytes. Without CAP_PERFMON the verifier has a barrier of some
 * 8 ns follow each store there, so they should be few; and up to kernel 6.8 it refuses to overwrite a part of a word. */
#pragma once

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "words are put together from their parts so");

struct frontend_key {
    __be64 address[2];
    u64 port_protocol; /* port in network order, protocol << 16 */
};
_Static_assert(sizeof(struct frontend_key) == 24, "frontend_key");

#define FRONTEND_NO_HOST 1 /* processes in the agent's network namespace pass */

/* `generation` is unique for each write and stands at both ends, with the row's own key between them: a hash map hands
 * a freed element to the next writer at once, under the eyes of a program that still reads it. */
struct frontend_row {
    u64 generation;
    struct frontend_key key;
    u64 slots; /* generation that its rows in `backends` carry: its own, or an earlier one's whose place it keeps */
    u32 service_id;
    u32 first; /* index of the first of those */
    u32 count;
    u32 limit; /* redirects a second of the whole policy, 0: none */
    u32 affinity_seconds; /* 0: no affinity */
    u8 flags;
    u8 skip_from, skip_to; /* cgroup levels of the policy's Pods; none when from > to */
    u8 zero;
    u64 generation_tail;
};
_Static_assert(sizeof(struct frontend_row) == 72, "frontend_row");

struct endpoint {
    __be64 address[2];
    u64 port; /* two bytes in network order, then zeros */
};
_Static_assert(sizeof(struct endpoint) == 24, "endpoint");

struct backend_row {
    u64 generation; /* `slots` of the frontend row that names it */
    struct endpoint endpoint;
};
_Static_assert(sizeof(struct backend_row) == 32, "backend_row");

struct affinity_key {
    struct frontend_key frontend;
    u64 client_netns; /* cookie */
};
_Static_assert(sizeof(struct affinity_key) == 32, "affinity_key");

/* `generation` is that of the frontend row by which the backend was last known to be in use; at both ends, as there. */
struct affinity_row {
    u64 generation;
    struct endpoint backend;
    u64 last_used; /* ns, CLOCK_MONOTONIC */
    u64 generation_tail;
};
_Static_assert(sizeof(struct affinity_row) == 48, "affinity_row");

struct member_key {
    struct frontend_key frontend;
    struct endpoint backend;
};
_Static_assert(sizeof(struct member_key) == 48, "member_key");

/* Bits, set for what some frontend or backend has: its port, and 16 bits mixed from its whole key. */
struct filter_row {
    u64 ports[65536 / 64];
    u64 frontends[65536 / 64];
};
_Static_assert(sizeof(struct filter_row) == 16384, "filter_row");

/* Order as in bpf/rows.py PassReason. */
enum pass_reason {
    PASS_LEASE,
    PASS_FROM_HOST,
    PASS_FROM_BACKEND,
    PASS_QOS,
    PASS_BOUND, /* the socket is bound to a device, whose network may not know the Pods */
    PASS_NO_MEMORY, /* the way back could not be noted */
    PASS_REASONS
};

struct counters_row {
    u64 redirects;
    u64 affinity_hits;
    u64 passes[PASS_REASONS];
};
_Static_assert(sizeof(struct counters_row) == 64, "counters_row");

struct backend_cgroup_key {
    u64 service_id;
    u64 cgroup_id;
};
_Static_assert(sizeof(struct backend_cgroup_key) == 16, "backend_cgroup_key");

/* The policy that the counters of the same service id are of. */
struct policy_row {
    char name[256];
    u64 uid; /* digest of metadata.uid, 0: it has none */
    u32 limit;
    u32 in_force; /* 0: it has no other rows than its counters */
};
_Static_assert(sizeof(struct policy_row) == 272, "policy_row");

struct config_row {
    u64 host_netns; /* cookie of the agent's network namespace */
    u64 lease_ns; /* 0: no lease */
};
_Static_assert(sizeof(struct config_row) == 16, "config_row");
