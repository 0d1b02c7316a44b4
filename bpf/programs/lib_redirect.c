/* The way of a call: whether it is redirected, and to which backend.
 *
 * The common ways, a socket's former backend and any backend, stand apart from that by affinity, and are marked as likely:
 * so all that they need stays in registers. What the compiler puts on the stack costs a barrier (types.h). */

/* A call on its way. */
struct attempt {
    const struct frontend_row *row;
    u64 generation; /* of the row */
    union call_keys *keys;
    struct backend_cgroup_key *caller;
};

/* Leaves the call alone and counts why, if the row was whole: -ENOENT or -EAGAIN. */
static __always_inline int pass(const struct attempt *try, enum pass_reason reason) {
    if (!end_reading(try->row, try->generation, &try->keys->frontend))
        return -EAGAIN;
    count_pass(&try->caller->service_id, reason);
    return -ENOENT;
}

/* The reading of the row ends here, and the limit is asked: 0, -ENOENT or -EAGAIN. */
static __always_inline int admit(const struct attempt *try) {
    u32 limit = try->row->limit;

    if (!end_reading(try->row, try->generation, &try->keys->frontend))
        return -EAGAIN;
    if (likely(!limit) || take_from_window(&try->caller->service_id, limit))
        return 0;
    count_pass(&try->caller->service_id, PASS_QOS);
    return -ENOENT;
}

/* Notes where the socket goes from now on, and counts: 0 or -ENOENT. */
static __always_inline int redirect(struct bpf_sock_addr *ctx, const struct attempt *try, struct socket_state *state,
                                    struct endpoint *backend, u64 affinity_hits) {
    if (note_pair(ctx, state, &try->keys->frontend, backend, try->generation)) {
        count_pass(&try->caller->service_id, PASS_NO_MEMORY);
        return -ENOENT;
    }
    count_redirect(&try->caller->service_id, affinity_hits);
    return 0;
}

/* Reads the backend of an affinity row, and the generation by which it was in use; 0 for a row that is replaced under our
 * eyes. */
static __always_inline u64 read_affinity(const struct affinity_row *row, struct endpoint *backend) {
    u64 generation = *(volatile u64 *)&row->generation_tail;

    barrier();
    *backend = row->backend;
    barrier();
    return *(volatile u64 *)&row->generation == generation ? generation : 0;
}

static __always_inline bool is_fresh(const struct affinity_row *row, u64 now, u32 seconds) {
    return (s64)(now - row->last_used) <= (s64)(seconds * NANOSECONDS);
}

/* Makes `backend` the client's. Where another CPU was first with this client, its choice becomes ours. A full map changes
 * nothing. */
static __always_inline void hold_affinity(const struct attempt *try, u64 now, u32 seconds, struct endpoint *backend) {
    struct affinity_row fresh = {
        .generation = try->generation, .backend = *backend, .last_used = now, .generation_tail = try->generation};
    struct affinity_row *other;
    struct endpoint theirs;

    if (!affinity.insert(&try->keys->client, &fresh))
        return;
    other = affinity.lookup(&try->keys->client);
    if (other && is_fresh(other, now, seconds) && read_affinity(other, &theirs) == try->generation)
        *backend = theirs;
    else
        affinity.update(&try->keys->client, &fresh);
}

/* Chooses the client's backend, or one that becomes the client's: 0, -ENOENT or -EAGAIN. */
static __always_inline int choose_by_affinity(struct bpf_sock_addr *ctx, const struct attempt *try, u32 seconds,
                                              struct endpoint *backend, u64 *affinity_hits) {
    union call_keys *keys = try->keys;
    u64 netns = bpf_get_netns_cookie(ctx), now = bpf_ktime_get_coarse_ns();
    struct affinity_row *mine;
    int error;

    keys->client.client_netns = netns;
    mine = affinity.lookup(&keys->client);
    if (mine && is_fresh(mine, now, seconds)) {
        u64 seen = read_affinity(mine, backend);

        if (seen == try->generation || is_member(keys, backend)) {
            error = admit(try);
            if (error)
                return error;
            *affinity_hits = 1;
            mine->last_used = now;
            return 0;
        }
    }
    error = read_any_backend(try->row, backend);
    if (!error)
        error = admit(try);
    if (error)
        return error;
    keys->client.client_netns = netns;
    hold_affinity(try, now, seconds, backend);
    return 0;
}

/* 0: `backend` is where the call goes. -ENOENT: it goes where it would have gone without us. -EAGAIN: the row was
 * replaced under our eyes, and nothing was done. */
static __always_inline int try_redirect(struct bpf_sock_addr *ctx, union call_keys *keys, struct endpoint *backend) {
    struct frontend_row *row = frontends.lookup(&keys->frontend);
    struct backend_cgroup_key caller;
    struct socket_state *state;
    struct attempt try;
    struct held held;
    u64 affinity_hits = 0;
    u32 seconds;
    int error;

    if (!row)
        return -ENOENT;
    try.row = row;
    try.generation = begin_reading(row);
    try.keys = keys;
    try.caller = &caller;
    caller.service_id = row->service_id;
    if (unlikely(from_agent()))
        return -ENOENT;
    if (unlikely(lease_expired()))
        return pass(&try, PASS_LEASE);
    if (unlikely(row->flags & FRONTEND_NO_HOST) && from_host(ctx))
        return pass(&try, PASS_FROM_HOST);
    if (unlikely(from_backend(row, &caller)))
        return pass(&try, PASS_FROM_BACKEND);
    if (unlikely(ctx->sk->bound_dev_if))
        return pass(&try, PASS_BOUND);
    /* Without the way back the program would see the backend, and drop its replies. */
    state = get_state(ctx, BPF_SK_STORAGE_GET_F_CREATE);
    if (unlikely(!state))
        return pass(&try, PASS_NO_MEMORY);
    if (likely(is_held(&state->pair, &keys->frontend, try.generation))) {
        error = read_held(&state->pair, try.generation, backend);
        if (!error)
            error = admit(&try);
        if (!error)
            count_redirect(&caller.service_id, 0);
        return error;
    }
    barrier_var(state); /* else what follows is computed before, and kept on the stack */
    if (unlikely(find_held(ctx, state, &keys->frontend, &held)))
        return pass(&try, PASS_NO_MEMORY);
    seconds = row->affinity_seconds;
    if (held.generation && (held.generation == try.generation || is_member(keys, &held.backend))) {
        *backend = held.backend; /* P16 goes before P13 */
        error = admit(&try);
    } else if (unlikely(seconds)) {
        error = choose_by_affinity(ctx, &try, seconds, backend, &affinity_hits);
    } else {
        error = read_any_backend(row, backend);
        if (!error)
            error = admit(&try);
    }
    return error ? error : redirect(ctx, &try, state, backend, affinity_hits);
}

/* 0: `backend` is where the call goes. -ENOENT: it goes where it would have gone without us. */
static __always_inline int choose_backend(struct bpf_sock_addr *ctx, const struct frontend_key *call,
                                          struct endpoint *backend) {
    union call_keys keys;
    int error;

    if (!may_be_ours(call))
        return -ENOENT;
    keys.frontend = *call;
    /* No loop: kernels before 6.17 would follow it for ever where a processor only guesses that it goes on. */
#pragma unroll
    for (int i = 0; i < MAX_READS; i++) {
        error = try_redirect(ctx, &keys, backend);
        if (likely(error != -EAGAIN))
            break;
    }
    if (error)
        turn_to_backend(ctx, &keys.frontend);
    return error;
}
