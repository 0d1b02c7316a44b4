/* Decides whether a call is redirected, and to which backend.
 *
 * In most calls the socket keeps its backend, or gets any backend. The code for these two cases is separate from the
 * code for affinity and marked as likely, so that the compiler keeps in registers what they need: each store to the
 * stack costs a barrier (types.h). */

/* One attempt to redirect a call by the row that we found for it. */
struct attempt {
    const struct frontend_row *row;
    u64 generation; /* of the row, as begin_reading saw it */
    union call_keys *keys;
    struct backend_cgroup_key *caller;
};

/* What the functions below return for a call that passes: the reason as a negative number. */
#define PASSED(reason) (-PASSED_BASE - (int)(reason))

/* Lets the call pass and counts the reason: PASSED(reason). -EAGAIN: the row was replaced meanwhile, and nothing was
 * counted. */
static __always_inline int pass(const struct attempt *attempt, enum pass_reason reason) {
    if (!end_reading(attempt->row, attempt->generation, &attempt->keys->frontend))
        return -EAGAIN;
    count_pass(&attempt->caller->service_id, reason);
    return PASSED(reason);
}

/* Ends the reading of the row, then asks for one redirect within the limit. 0: the call may be redirected.
 * PASSED(PASS_QOS): the limit is reached. -EAGAIN: the row was replaced meanwhile, and nothing was counted. */
static __always_inline int admit(const struct attempt *attempt) {
    u32 limit = attempt->row->limit;

    if (!end_reading(attempt->row, attempt->generation, &attempt->keys->frontend))
        return -EAGAIN;
    if (likely(!limit) || within_limit(&attempt->caller->service_id, limit))
        return 0;
    count_pass(&attempt->caller->service_id, PASS_QOS);
    return PASSED(PASS_QOS);
}

/* Records in the socket where its calls go from now on, and counts the redirect: 0. PASSED(PASS_NO_MEMORY): there is
 * no memory for the record. */
static __always_inline int redirect(struct bpf_sock_addr *ctx, const struct attempt *attempt,
                                    struct socket_state *state, struct endpoint *backend, u64 affinity_hits) {
    if (record_pair(ctx, state, &attempt->keys->frontend, backend, attempt->generation)) {
        count_pass(&attempt->caller->service_id, PASS_NO_MEMORY);
        return PASSED(PASS_NO_MEMORY);
    }
    count_redirect(&attempt->caller->service_id, affinity_hits);
    return 0;
}

/* Copies the backend of an affinity row. Returns the generation of the frontend row by which the backend was last known
 * to be in use; 0 when another CPU replaced the affinity row meanwhile. */
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

/* Records `backend` as the client's. If another CPU has just recorded one for this client, we take that one instead. If
 * the map is full, the client gets no affinity, and the call goes on. */
static __always_inline void record_affinity(const struct attempt *attempt, u64 now, u32 seconds,
                                            struct endpoint *backend) {
    struct affinity_row fresh = {.generation = attempt->generation,
                                 .backend = *backend,
                                 .last_used = now,
                                 .generation_tail = attempt->generation};
    struct affinity_row *other;
    struct endpoint theirs;

    if (!affinity.insert(&attempt->keys->client, &fresh))
        return;
    other = affinity.lookup(&attempt->keys->client);
    if (other && is_fresh(other, now, seconds) && read_affinity(other, &theirs) == attempt->generation)
        *backend = theirs;
    else
        affinity.update(&attempt->keys->client, &fresh);
}

/* Chooses the backend that the client has by affinity, or a new one that it keeps. 0, PASSED and -EAGAIN as in
 * admit. */
static __always_inline int choose_by_affinity(struct bpf_sock_addr *ctx, const struct attempt *attempt, u32 seconds,
                                              struct endpoint *backend, u64 *affinity_hits) {
    union call_keys *keys = attempt->keys;
    u64 netns = bpf_get_netns_cookie(ctx), now = bpf_ktime_get_coarse_ns();
    struct affinity_row *mine;
    int error;

    keys->client.client_netns = netns;
    mine = affinity.lookup(&keys->client);
    if (mine && is_fresh(mine, now, seconds)) {
        u64 seen = read_affinity(mine, backend);

        if (seen == attempt->generation || is_member(keys, backend)) {
            error = admit(attempt);
            if (error)
                return error;
            *affinity_hits = 1;
            mine->last_used = now;
            return 0;
        }
    }
    error = read_any_backend(attempt->row, backend);
    if (!error)
        error = admit(attempt);
    if (error)
        return error;
    keys->client.client_netns = netns;
    record_affinity(attempt, now, seconds, backend);
    return 0;
}

/* 0: the call goes to `backend`. PASSED(reason): the call takes the normal way. -ENOENT: so it does, and no policy has a
 * say in it. -EAGAIN: the row was replaced while we read it, and nothing was done. */
static __always_inline int try_redirect(struct bpf_sock_addr *ctx, union call_keys *keys, struct endpoint *backend) {
    struct frontend_row *row = frontends.lookup(&keys->frontend);
    struct backend_cgroup_key caller;
    struct socket_state *state;
    struct attempt attempt;
    struct kept_backend kept;
    u64 affinity_hits = 0;
    u32 seconds, shadow;
    int error;

    if (!row)
        return -ENOENT;
    attempt.row = row;
    attempt.generation = begin_reading(row);
    attempt.keys = keys;
    attempt.caller = &caller;
    caller.service_id = row->service_id;
    if (unlikely(from_agent()))
        return -ENOENT;
    if (unlikely(lease_expired()))
        return pass(&attempt, PASS_LEASE);
    if (unlikely(row->flags & FRONTEND_NO_HOST) && from_host(ctx))
        return pass(&attempt, PASS_FROM_HOST);
    if (unlikely(from_backend(row, &caller)))
        return pass(&attempt, PASS_FROM_BACKEND);
    if (unlikely(row->percentage < 100) && !in_share(ctx, row->percentage))
        return pass(&attempt, PASS_PERCENTAGE);
    if (unlikely(ctx->sk->bound_dev_if))
        return pass(&attempt, PASS_BOUND);
    /* The way back needs this memory. Without it the calling program would see replies from an address that it did not
     * call, and drop them. */
    state = get_state(ctx, BPF_SK_STORAGE_GET_F_CREATE);
    if (unlikely(!state))
        return pass(&attempt, PASS_NO_MEMORY);
    /* This is never so in Shadow mode: the row of a policy that turns to it gets a new generation, and no socket
     * records that. */
    if (likely(is_current(&state->pair, &keys->frontend, attempt.generation))) {
        error = read_current(&state->pair, attempt.generation, backend);
        if (!error)
            error = admit(&attempt);
        if (!error)
            count_redirect(&caller.service_id, 0);
        return error;
    }
    barrier_var(state); /* otherwise the compiler computes what follows ahead of time, and keeps it on the stack */
    if (unlikely(find_kept(ctx, state, &keys->frontend, &kept)))
        return pass(&attempt, PASS_NO_MEMORY);
    seconds = row->affinity_seconds;
    shadow = row->flags & FRONTEND_SHADOW;
    if (kept.generation && (kept.generation == attempt.generation || is_member(keys, &kept.backend))) {
        *backend = kept.backend; /* a socket's backend (P16) goes before a client's (P13) */
        error = admit(&attempt);
    } else if (unlikely(seconds)) {
        error = choose_by_affinity(ctx, &attempt, seconds, backend, &affinity_hits);
    } else {
        error = read_any_backend(row, backend);
        if (!error)
            error = admit(&attempt);
    }
    if (error)
        return error;
    if (unlikely(shadow)) {
        count_shadow(&caller.service_id, affinity_hits);
        return PASSED(PASS_SHADOW);
    }
    return redirect(ctx, &attempt, state, backend, affinity_hits);
}

/* Decides about a call, and changes its address if it is redirected. */
static __always_inline void decide(struct bpf_sock_addr *ctx, const struct frontend_key *call, enum calling_hook hook,
                                   bool ipv6) {
    union call_keys keys;
    struct endpoint backend;
    int error;

    if (!may_be_ours(call))
        return;
    keys.frontend = *call;
    /* Unrolled. The verifier of kernels before 6.17 also follows paths that a processor takes only by speculation,
     * and in a real loop there would be no end of these. */
#pragma unroll
    for (int i = 0; i < MAX_READS; i++) {
        error = try_redirect(ctx, &keys, &backend);
        if (likely(error != -EAGAIN))
            break;
    }
    if (error)
        note_direct_call(ctx, &keys.frontend);
    else
        set_endpoint(ctx, &backend, ipv6);
    if (unlikely(is_watched()) && (!error || error <= PASSED(0)))
        tell_watchers(ctx, &keys.frontend, error ? 1 - PASSED_BASE - error : 0, hook, ipv6);
}
