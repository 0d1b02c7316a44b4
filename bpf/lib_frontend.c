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

/* Less than, equal to or greater than 0, in the order in which backends are sorted. */
static __always_inline int compare_endpoints(const struct endpoint *a, const struct endpoint *b) {
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (a->address[i] != b->address[i])
            return bpf_ntohl(a->address[i]) < bpf_ntohl(b->address[i]) ? -1 : 1;
    return (int)bpf_ntohs(a->port) - (int)bpf_ntohs(b->port);
}

/* Whether `wanted` is one of the row's backends: 0, -ENOENT or -EAGAIN. */
static __always_inline int find_backend(const struct frontend_row *row, const struct endpoint *wanted) {
    u32 low = 0, high = row->count;

    for (int step = 0; step < MAX_SEARCH_STEPS && low < high; step++) {
        u32 middle = (low + high) / 2;
        struct endpoint backend = {};
        int order;

        if (read_backend(row, middle, &backend))
            return -EAGAIN;
        order = compare_endpoints(wanted, &backend);
        if (order == 0)
            return 0;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return -ENOENT;
}
