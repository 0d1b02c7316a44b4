/* Finding the row of a frontend and a backend in it. */

static __always_inline bool is_set(const u64 *bits, u32 i) {
    return bits[i / 64] >> (i % 64) & 1;
}

/* Nearly every call on a node ends here, */
static __always_inline bool port_in_use(u32 port_be) {
    const struct filter_row *filter = ONLY_ROW(FILTER);

    return is_set(filter->ports, bpf_ntohs(port_be));
}

/* and nearly every other one that is not for a frontend here, before a key for a look-up is made. */
static __always_inline bool may_be_frontend(const struct frontend_key *call) {
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

/* Copies one backend of the row. -EAGAIN: its place was given to a later generation. */
static __always_inline int read_backend(const struct frontend_row *row, u64 generation, u32 index,
                                        struct endpoint *backend) {
    u64 key = (u32)(row->first + index); /* the map reads its lower half */
    struct backend_row *shared = backends.lookup((u32 *)&key);

    if (!shared)
        return -EAGAIN;
    *backend = shared->endpoint;
    barrier();
    return *(volatile u64 *)&shared->generation == generation ? 0 : -EAGAIN;
}

static __always_inline int read_any_backend(const struct frontend_row *row, u64 generation, struct endpoint *backend) {
    u32 count = row->count;

    return read_backend(row, generation, count > 1 ? bpf_get_prandom_u32() % count : 0, backend);
}

/* Without CAP_PERFMON the verifier also follows each branch the way it does not go, as a processor may that guesses: a
 * search that branches at each step has more ways than it looks at. So the steps compute, in ones and zeros. */
static __always_inline u64 is_less(u64 a, u64 b) {
    return ((~a & b) | (~(a ^ b) & (a - b))) >> 63;
}

static __always_inline u64 is_equal(u64 a, u64 b) {
    u64 difference = a ^ b;

    return ((difference | -difference) >> 63) ^ 1;
}

/* An endpoint as numbers that sort as backends are sorted: by address, then port. */
struct order {
    u64 high, low, port;
};

static __always_inline void get_order(const struct endpoint *endpoint, struct order *order) {
    order->high = bpf_ntohll(endpoint->address[0]);
    order->low = bpf_ntohll(endpoint->address[1]);
    order->port = bpf_ntohs(endpoint->port);
}

static __always_inline u64 comes_before(const struct order *a, const struct order *b) {
    u64 by_port = is_equal(a->low, b->low) & is_less(a->port, b->port);

    return is_less(a->high, b->high) | (is_equal(a->high, b->high) & (is_less(a->low, b->low) | by_port));
}

/* Whether `wanted` is one of the row's backends, of which there is at least one: 0, -ENOENT or -EAGAIN. */
static __always_inline int find_backend(const struct frontend_row *row, u64 generation, const struct endpoint *wanted) {
    struct endpoint backend;
    struct order goal, here;
    u64 low = 0, left = row->count;

    get_order(wanted, &goal);
    for (int step = 0; step < MAX_SEARCH_STEPS && left > 1; step++) {
        u64 half = left / 2, before;

        if (read_backend(row, generation, low + half - 1, &backend))
            return -EAGAIN;
        get_order(&backend, &here);
        before = comes_before(&here, &goal);
        barrier_var(before);
        low += half & -before;
        left -= half;
    }
    if (read_backend(row, generation, low, &backend))
        return -EAGAIN;
    return same_address(backend.address, wanted->address) && backend.port == wanted->port ? 0 : -ENOENT;
}
