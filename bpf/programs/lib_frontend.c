/* The filter, and a frontend's backends: choosing one at random, and whether one is still in use. */

static __always_inline bool is_set(const u64 *bits, u32 i) {
    return bits[i / 64] >> (i % 64) & 1;
}

/* Whether any frontend or backend has this port. This is the first and cheapest check, and the only one for nearly
 * every call on a node. */
static __always_inline bool port_in_use(u32 port_be) {
    const struct filter_row *filter = ONLY_ROW(FILTER);

    return is_set(filter->ports, bpf_ntohs(port_be));
}

/* Whether the address, port and protocol may be those of a frontend or backend. There are false positives, but no false
 * negatives. Thanks to it, nearly all of the other calls that are not for us need no hash look-up. */
static __always_inline bool may_be_ours(const struct frontend_key *call) {
    const struct filter_row *filter = ONLY_ROW(FILTER);
    u64 mixed = (call->address[0] ^ call->address[1] ^ call->port_protocol) * HASH_FACTOR;

    return is_set(filter->frontends, mixed >> 48);
}

/* Copies one of the row's backends, chosen at random. -EAGAIN: the agent has replaced the row, and given the place
 * of this backend to another generation. */
static __always_inline int read_any_backend(const struct frontend_row *row, struct endpoint *backend) {
    u32 count = row->count, index = count > 1 ? bpf_get_prandom_u32() % count : 0;
    u64 key = (u32)(row->first + index); /* the map reads the lower half of it */
    struct backend_row *shared = backends.lookup((u32 *)&key);

    if (!shared)
        return -EAGAIN;
    *backend = shared->endpoint;
    barrier();
    if (*(volatile u64 *)&shared->generation != row->backends_generation)
        return -EAGAIN;
    return is_whole(seal_of(row->backends_generation, backend), &shared->seal) ? 0 : -EAGAIN;
}

/* The keys of all look-ups of one call. They share one place on the stack, since each begins with the frontend. */
union call_keys {
    struct frontend_key frontend;
    struct affinity_key client;
    struct member_key member;
};

/* One attempt to redirect a call by the row that we found for it. */
struct attempt {
    const struct frontend_row *row;
    u64 generation; /* of the row, as begin_reading saw it */
    union call_keys *keys;
    struct backend_cgroup_key *caller;
    struct socket_state *state; /* of the socket */
};

/* Whether the frontend still uses this backend. */
static __always_inline bool is_member(union call_keys *keys, const struct endpoint *backend) {
    keys->member.backend = *backend;
    return members.lookup(&keys->member) != 0;
}
