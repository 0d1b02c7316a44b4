/* Finding the row of a frontend and a backend in it. */

static __always_inline bool is_set(const u64 *bits, u32 i) {
    return bits[i / 64] >> (i % 64) & 1;
}

/* Nearly every call on a node ends here, */
static __always_inline bool port_in_use(u32 port_be) {
    const struct filter_row *filter = ONLY_ROW(FILTER);

    return is_set(filter->ports, bpf_ntohs(port_be));
}

/* and nearly every other one that is neither for a frontend nor for a backend here, before a key for a look-up is made. */
static __always_inline bool may_be_ours(const struct frontend_key *call) {
    const struct filter_row *filter = ONLY_ROW(FILTER);
    u64 mixed = (call->address[0] ^ call->address[1] ^ call->port_protocol) * FILTER_FACTOR;

    return is_set(filter->frontends, mixed >> 48);
}

/* A row is read where it stands, between these two. A writer fills it from its head to its tail; read from the tail to
 * the head, both ends agree only on a whole one. */
static __always_inline u64 begin_reading(const struct frontend_row *row) {
    u64 generation = *(volatile u64 *)&row->generation_tail;

    barrier();
    return generation;
}

/* Whether all that was read of the row was of that generation, and `call`'s. */
static __always_inline bool end_reading(const struct frontend_row *row, u64 generation,
                                        const struct frontend_key *call) {
    bool same_key = same_address(row->key.address, call->address) && row->key.port_protocol == call->port_protocol;

    barrier();
    return same_key && *(volatile u64 *)&row->generation == generation;
}

/* Copies one of the row's backends. -EAGAIN: its place was given to a later generation. */
static __always_inline int read_any_backend(const struct frontend_row *row, struct endpoint *backend) {
    u32 count = row->count, index = count > 1 ? bpf_get_prandom_u32() % count : 0;
    u64 key = (u32)(row->first + index); /* the map reads its lower half */
    struct backend_row *shared = backends.lookup((u32 *)&key);

    if (!shared)
        return -EAGAIN;
    *backend = shared->endpoint;
    barrier();
    return *(volatile u64 *)&shared->generation == row->slots ? 0 : -EAGAIN;
}

/* The keys of one call's look-ups, in one place: each begins with the frontend. */
union call_keys {
    struct frontend_key frontend;
    struct affinity_key client;
    struct member_key member;
};

/* Whether `backend` is in use for the frontend. */
static __always_inline bool is_member(union call_keys *keys, const struct endpoint *backend) {
    keys->member.backend = *backend;
    return members.lookup(&keys->member) != 0;
}
