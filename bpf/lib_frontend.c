/* Finding the row of a frontend and a backend in it. */

/* Nearly every call on a node ends here: one array look-up, which the verifier inlines. */
static __always_inline bool port_in_use(u32 port_be) {
    u32 port = bpf_ntohs(port_be);
    u32 word = port / 64;
    u64 *bits = ports.lookup(&word);

    return bits && (*bits >> (port % 64)) & 1;
}

/* Copies the row of `call`. -ENOENT: no frontend. -EAGAIN: the row was replaced under our eyes.
 * A writer fills a row from its head to its tail; read from the tail to the head, both ends agree only on a whole one. */
static __always_inline int read_frontend(struct frontend_key *call, struct frontend_row *row) {
    struct frontend_row *shared = frontends.lookup(call);

    if (!shared)
        return -ENOENT;
    row->generation_tail = *(volatile u64 *)&shared->generation_tail;
    barrier();
    __builtin_memcpy(row->address, shared->address,
                     offsetof(struct frontend_row, zero) - offsetof(struct frontend_row, address));
    barrier();
    row->generation = *(volatile u64 *)&shared->generation;
    if (row->generation != row->generation_tail || !same_address(row->address, call->address) ||
        row->port != call->port || row->protocol != call->protocol)
        return -EAGAIN;
    return 0;
}

/* Copies one backend of the row. -EAGAIN: its place was given to a later generation. */
static __always_inline int read_backend(const struct frontend_row *row, u32 index, struct endpoint *backend) {
    struct backend_row *shared;

    index += row->first;
    shared = backends.lookup(&index);
    if (!shared)
        return -EAGAIN;
    *backend = shared->endpoint;
    barrier();
    return *(volatile u64 *)&shared->generation == row->generation ? 0 : -EAGAIN;
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
    order->high = (u64)bpf_ntohl(endpoint->address[0]) << 32 | bpf_ntohl(endpoint->address[1]);
    order->low = (u64)bpf_ntohl(endpoint->address[2]) << 32 | bpf_ntohl(endpoint->address[3]);
    order->port = bpf_ntohs(endpoint->port);
}

static __always_inline u64 comes_before(const struct order *a, const struct order *b) {
    u64 by_port = is_equal(a->low, b->low) & is_less(a->port, b->port);

    return is_less(a->high, b->high) | (is_equal(a->high, b->high) & (is_less(a->low, b->low) | by_port));
}

/* Whether `wanted` is one of the row's backends, of which there is at least one: 0, -ENOENT or -EAGAIN. */
static __always_inline int find_backend(const struct frontend_row *row, const struct endpoint *wanted) {
    struct endpoint backend = {};
    struct order goal, here;
    u64 low = 0, left = row->count;

    get_order(wanted, &goal);
    for (int step = 0; step < MAX_SEARCH_STEPS && left > 1; step++) {
        u64 half = left / 2, before;

        if (read_backend(row, low + half - 1, &backend))
            return -EAGAIN;
        get_order(&backend, &here);
        before = comes_before(&here, &goal);
        barrier_var(before);
        low += half & -before;
        left -= half;
    }
    if (read_backend(row, low, &backend))
        return -EAGAIN;
    return same_address(backend.address, wanted->address) && backend.port == wanted->port ? 0 : -ENOENT;
}
