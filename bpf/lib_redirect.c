/* The way of a call: whether it is redirected, and to which backend.
 *
 * The common way, to any backend, stands apart from that by affinity, and is marked as likely: so all that it needs stays
 * in registers. What the compiler puts on the stack costs a barrier (types.h). */

/* The client's backend, if it has one that is usable and not expired: 0, -ENOENT or -EAGAIN. */
static __always_inline int find_affinity(const struct frontend_row *row, u64 generation, u32 seconds,
                                         struct affinity_key *client, struct endpoint *backend) {
    struct affinity_row *held = affinity.lookup(client);

    if (!held || (s64)(bpf_ktime_get_coarse_ns() - held->last_used) > (s64)(seconds * NANOSECONDS))
        return -ENOENT;
    *backend = held->backend;
    return find_backend(row, generation, backend);
}

/* Makes `backend` the client's. Where another CPU was first with this client, its choice becomes ours. */
static __always_inline void hold_affinity(const struct frontend_row *row, u64 generation, u32 seconds,
                                          struct affinity_key *client, bool held, struct endpoint *backend) {
    u64 now = bpf_ktime_get_coarse_ns();
    struct affinity_row fresh = {.backend = *backend, .last_used = now};
    struct affinity_row *mine;
    struct endpoint other;

    if (held) {
        mine = affinity.lookup(client);
        if (mine)
            mine->last_used = now;
        return;
    }
    if (!affinity.insert(client, &fresh))
        return;
    if (!find_affinity(row, generation, seconds, client, &other) && end_reading(row, generation, &client->frontend))
        *backend = other;
    else
        affinity.update(client, &fresh);
}

/* Leaves the call alone and counts why, if the row was whole: -ENOENT or -EAGAIN. */
static __always_inline int pass(const struct frontend_row *row, u64 generation, const struct frontend_key *call,
                                struct backend_cgroup_key *caller, enum pass_reason reason) {
    if (!end_reading(row, generation, call))
        return -EAGAIN;
    count_pass(&caller->service_id, reason);
    return -ENOENT;
}

/* The reading of the row ends here, and the limit is asked: 0, -ENOENT or -EAGAIN. */
static __always_inline int admit(const struct frontend_row *row, u64 generation, const struct frontend_key *call,
                                 struct backend_cgroup_key *caller) {
    u32 limit = row->limit;

    if (!end_reading(row, generation, call))
        return -EAGAIN;
    if (likely(!limit) || take_from_window(&caller->service_id, limit))
        return 0;
    count_pass(&caller->service_id, PASS_QOS);
    return -ENOENT;
}

static __always_inline int redirect(struct bpf_sock_addr *ctx, const struct frontend_key *call,
                                    struct backend_cgroup_key *caller, const struct endpoint *backend,
                                    bool by_affinity) {
    /* Without the way back the program would see the backend, and drop its replies. */
    if (remember_pair(ctx, call, backend))
        return -ENOENT;
    count_redirect(&caller->service_id, by_affinity);
    return 0;
}

static __always_inline int redirect_to_any(struct bpf_sock_addr *ctx, const struct frontend_row *row, u64 generation,
                                           const struct frontend_key *call, struct backend_cgroup_key *caller,
                                           struct endpoint *backend) {
    int error = read_any_backend(row, generation, backend);

    if (!error)
        error = admit(row, generation, call, caller);
    return error ? error : redirect(ctx, call, caller, backend, false);
}

static __always_inline int redirect_by_affinity(struct bpf_sock_addr *ctx, const struct frontend_row *row,
                                                u64 generation, u32 seconds, struct affinity_key *client,
                                                struct backend_cgroup_key *caller, struct endpoint *backend) {
    bool held;
    int error;

    client->client_netns = bpf_get_netns_cookie(ctx);
    error = find_affinity(row, generation, seconds, client, backend);
    held = !error;
    if (error == -ENOENT)
        error = read_any_backend(row, generation, backend);
    if (!error)
        error = admit(row, generation, &client->frontend, caller);
    if (error)
        return error;
    hold_affinity(row, generation, seconds, client, held, backend);
    return redirect(ctx, &client->frontend, caller, backend, held);
}

/* 0: `backend` is where the call goes. -ENOENT: it goes where it would have gone without us. -EAGAIN: the row was
 * replaced under our eyes, and nothing was done. */
static __always_inline int try_redirect(struct bpf_sock_addr *ctx, struct affinity_key *client,
                                        struct endpoint *backend) {
    struct frontend_key *call = &client->frontend;
    struct frontend_row *row = frontends.lookup(call);
    struct backend_cgroup_key caller;
    u64 generation;
    u32 seconds;

    if (!row)
        return -ENOENT;
    generation = begin_reading(row);
    caller.service_id = row->service_id;
    if (unlikely(lease_expired()))
        return pass(row, generation, call, &caller, PASS_LEASE);
    if (unlikely(row->flags & FRONTEND_NO_HOST) && from_host(ctx))
        return pass(row, generation, call, &caller, PASS_FROM_HOST);
    if (unlikely(from_backend(row, &caller)))
        return pass(row, generation, call, &caller, PASS_FROM_BACKEND);
    seconds = row->affinity_seconds;
    if (unlikely(seconds))
        return redirect_by_affinity(ctx, row, generation, seconds, client, &caller, backend);
    return redirect_to_any(ctx, row, generation, call, &caller, backend);
}

/* 0: `backend` is where the call goes. -ENOENT: it goes where it would have gone without us. */
static __always_inline int choose_backend(struct bpf_sock_addr *ctx, const struct frontend_key *call,
                                          struct endpoint *backend) {
    struct affinity_key client;

    if (!may_be_frontend(call))
        return -ENOENT;
    client.frontend = *call;
#pragma unroll /* one register less */
    for (int i = 0; i < MAX_READS; i++) {
        int error = try_redirect(ctx, &client, backend);

        if (likely(error != -EAGAIN))
            return error;
    }
    return -ENOENT;
}
