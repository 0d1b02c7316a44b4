/* Session affinity: the backend that a client, a network namespace, has for a frontend (P13). */

/* Copies the backend of an affinity row. Returns the generation of the frontend row by which the backend was last known
 * to be in use; 0 when another CPU replaced the affinity row meanwhile. */
static __always_inline u64 read_affinity(const struct affinity_row *row, struct endpoint *backend) {
    u64 generation = *(volatile u64 *)&row->generation_tail;

    barrier();
    *backend = row->backend;
    barrier();
    if (*(volatile u64 *)&row->generation != generation || !is_whole(seal_of(generation, backend), &row->seal))
        return 0;
    return generation;
}

static __always_inline bool is_fresh(const struct affinity_row *row, u64 now, u32 seconds) {
    return (s64)(now - row->last_used) <= (s64)(seconds * NANOSECONDS);
}

/* Copies the backend that the client has by affinity. Returns false if it has none that is in use. Sets `recorded` if
 * the client's row is of the frontend's present generation, and needs no update. */
static __always_inline bool find_affinity(struct bpf_sock_addr *ctx, const struct attempt *attempt, u32 seconds,
                                          struct endpoint *backend, bool *recorded) {
    u64 netns = bpf_get_netns_cookie(ctx), now = bpf_ktime_get_coarse_ns();
    union call_keys *keys = attempt->keys;
    struct affinity_row *row;

    keys->client.client_netns = netns;
    row = affinity.lookup(&keys->client);
    if (!row || !is_fresh(row, now, seconds))
        return false;
    if (unlikely(read_affinity(row, backend) != attempt->generation))
        return is_member(keys, backend);
    row->last_used = now;
    *recorded = true;
    return true;
}

/* Records `backend` as the client's. If another CPU has just recorded one for this client, we take that one instead. If
 * the map is full, the client gets no affinity, and the call goes on. */
static __always_inline void record_affinity(struct bpf_sock_addr *ctx, const struct attempt *attempt, u32 seconds,
                                            struct endpoint *backend) {
    struct affinity_row fresh = {.generation = attempt->generation,
                                 .backend = *backend,
                                 .last_used = bpf_ktime_get_coarse_ns(),
                                 .generation_tail = attempt->generation,
                                 .seal = seal_of(attempt->generation, backend)};
    struct affinity_row *other;
    struct endpoint theirs;

    attempt->keys->client.client_netns = bpf_get_netns_cookie(ctx);
    if (!affinity.insert(&attempt->keys->client, &fresh))
        return;
    other = affinity.lookup(&attempt->keys->client);
    if (other && is_fresh(other, fresh.last_used, seconds) && read_affinity(other, &theirs) == attempt->generation)
        *backend = theirs;
    else
        affinity.update(&attempt->keys->client, &fresh);
}
