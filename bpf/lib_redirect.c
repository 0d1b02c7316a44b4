/* The way of a call: whether it is redirected, and to which backend. */

/* The client's backend, if it has one that is usable and not expired: 0, -ENOENT or -EAGAIN. */
static __always_inline int find_affinity(const struct frontend_row *row, struct affinity_key *key, u64 now,
                                         struct endpoint *backend) {
    struct affinity_row *held = affinity.lookup(key);

    if (!held || (s64)(now - held->last_used) > (s64)(row->affinity_seconds * NANOSECONDS))
        return -ENOENT;
    *backend = held->backend;
    return find_backend(row, backend);
}

/* Makes `backend` the client's. Where another CPU was first with this client, its choice becomes ours. */
static __always_inline void hold_affinity(const struct frontend_row *row, struct affinity_key *key, u64 now, bool held,
                                          struct endpoint *backend) {
    struct affinity_row fresh = {.backend = *backend, .last_used = now};
    struct affinity_row *mine;
    struct endpoint other = {};

    if (held) {
        mine = affinity.lookup(key);
        if (mine)
            mine->last_used = now;
        return;
    }
    if (!affinity.insert(key, &fresh))
        return;
    if (!find_affinity(row, key, now, &other))
        *backend = other;
    else
        affinity.update(key, &fresh);
}

/* 0: `backend` is where the call goes. -ENOENT: it goes where it would have gone without us. */
static __always_inline int choose_backend(struct bpf_sock_addr *ctx, struct frontend_key *call,
                                          struct endpoint *backend) {
    struct frontend_row row = {};
    struct affinity_key client = {};
    enum pass_reason reason;
    bool held = false;
    int error = -ENOENT;
    u64 now = 0;

    for (int i = 0; i < MAX_READS; i++) {
        error = read_frontend(call, &row);
        if (error == -ENOENT)
            return -ENOENT;
        if (error || !row.count)
            continue;
        error = -ENOENT;
        if (row.affinity_seconds) {
            now = bpf_ktime_get_coarse_ns();
            client.client_netns = bpf_get_netns_cookie(ctx);
            client.frontend = *call;
            error = find_affinity(&row, &client, now, backend);
            held = !error;
        }
        if (error == -ENOENT)
            error = read_backend(&row, row.count > 1 ? bpf_get_prandom_u32() % row.count : 0, backend);
        if (!error)
            break;
    }
    if (error)
        return -ENOENT;

    now = bpf_ktime_get_coarse_ns();
    reason = find_exception(ctx, &row, now);
    if (reason == PASS_REASONS && row.limit && !take_from_window(row.service_id, row.limit, now))
        reason = PASS_QOS;
    if (reason != PASS_REASONS) {
        count_pass(row.service_id, reason);
        return -ENOENT;
    }
    if (row.affinity_seconds)
        hold_affinity(&row, &client, now, held, backend);
    /* Without the way back the program would see the backend, and drop its replies. */
    if (remember_pair(ctx, call, backend))
        return -ENOENT;
    count_redirect(row.service_id, held);
    return 0;
}
