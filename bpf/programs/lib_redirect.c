/* Decides whether a call is redirected, and to which backend.
 *
 * In most calls the socket keeps its backend. The code for that is separate from choose_backend and marked as likely,
 * so that the compiler keeps in registers what it needs: each store to the stack costs a barrier (types.h). */

/* What the functions below return for a call that passes: the reason as a negative number. */
#define PASSED(reason) (-PASSED_BASE - (int)(reason))

/* Lets the call pass and counts the reason: PASSED(reason). -EAGAIN: the row was replaced meanwhile, and nothing was
 * counted. */
static __always_inline int pass(const struct attempt *attempt, enum pass_reason reason) {
    if (!end_reading(attempt->row, attempt->generation, &attempt->keys->frontend))
        return -EAGAIN;
    count_pass(&attempt->caller->policy_id, reason);
    return PASSED(reason);
}

/* Ends the reading of the row, then asks for one redirect within the limit. 0: the call may be redirected.
 * PASSED(PASS_QOS): the limit is reached. -EAGAIN: the row was replaced meanwhile, and nothing was counted. */
static __always_inline int admit(const struct attempt *attempt) {
    u32 limit = attempt->row->limit;

    if (!end_reading(attempt->row, attempt->generation, &attempt->keys->frontend))
        return -EAGAIN;
    if (likely(!limit) || within_limit(&attempt->caller->policy_id, limit))
        return 0;
    count_pass(&attempt->caller->policy_id, PASS_QOS);
    return PASSED(PASS_QOS);
}

/* Chooses a backend for the socket, and records in the socket where its calls go from now on. It returns what
 * try_redirect does. */
static __always_inline int choose_backend(struct bpf_sock_addr *ctx, struct attempt copy, struct endpoint *backend) {
    const struct attempt *attempt = &copy;
    bool by_affinity = false, recorded = false;
    struct kept_backend kept;
    u32 seconds, shadow;
    int error = 0;

    /* The compiler puts these copies on the stack. Without them it would put the originals there, in every call. */
    barrier_var(ctx);
    barrier_var(copy.row);
    barrier_var(copy.generation);
    barrier_var(copy.state);
    seconds = attempt->row->affinity_seconds;
    shadow = attempt->row->flags & FRONTEND_SHADOW;
    if (unlikely(find_kept(ctx, attempt->state, &attempt->keys->frontend, &kept)))
        return pass(attempt, PASS_NO_MEMORY);
    if (kept.generation && (kept.generation == attempt->generation || is_member(attempt->keys, &kept.backend))) {
        *backend = kept.backend; /* a socket's backend (P16) takes precedence over a client's (P13) */
        recorded = true;
    } else {
        if (unlikely(seconds))
            by_affinity = find_affinity(ctx, attempt, seconds, backend, &recorded);
        if (!by_affinity)
            error = read_any_backend(attempt->row, backend);
    }
    if (!error)
        error = admit(attempt);
    if (error)
        return error;
    if (unlikely(seconds) && !recorded)
        record_affinity(ctx, attempt, seconds, backend);
    if (unlikely(shadow)) {
        count_pass(&attempt->caller->policy_id, PASS_SHADOW);
        error = PASSED(PASS_SHADOW);
    } else if (record_pair(ctx, attempt->state, &attempt->keys->frontend, backend, attempt->generation)) {
        count_pass(&attempt->caller->policy_id, PASS_NO_MEMORY);
        return PASSED(PASS_NO_MEMORY);
    } else {
        count_redirect(&attempt->caller->policy_id);
    }
    if (unlikely(by_affinity))
        count_affinity_hit(&attempt->caller->policy_id);
    return error;
}

/* 0: the call goes to `backend`. PASSED(reason): it takes the normal way, and the reason is counted. -ENOENT: it takes
 * the normal way, and nothing is counted, since it is for no frontend or from the agent. -EAGAIN: the row was replaced
 * while we read it, and nothing was done. */
static __always_inline int try_redirect(struct bpf_sock_addr *ctx, struct attempt *attempt, struct endpoint *backend) {
    const struct frontend_row *row = frontends.lookup(&attempt->keys->frontend);
    struct frontend_row copy;
    int error;

    if (!row)
        return -ENOENT;
    if (!open_row(&row, &copy))
        return -EAGAIN;
    attempt->row = row;
    attempt->generation = begin_reading(row);
    attempt->caller->policy_id = row->policy_id;
    if (unlikely(from_agent()))
        return -ENOENT;
    if (unlikely(lease_expired()))
        return pass(attempt, PASS_LEASE);
    if (unlikely(row->flags & FRONTEND_NO_HOST) && from_host(ctx))
        return pass(attempt, PASS_FROM_HOST);
    if (unlikely(from_backend(row, attempt->caller)))
        return pass(attempt, PASS_FROM_BACKEND);
    if (unlikely(row->percentage < 100) && !in_share(ctx, row))
        return pass(attempt, PASS_PERCENTAGE);
    if (unlikely(ctx->sk->bound_dev_if))
        return pass(attempt, PASS_BOUND);
    /* The way back needs this memory. Without it the calling program would see replies from an address that it did not
     * call, and would drop them. */
    attempt->state = get_state(ctx, BPF_SK_STORAGE_GET_F_CREATE);
    if (unlikely(!attempt->state))
        return pass(attempt, PASS_NO_MEMORY);
    /* In Shadow mode no pair is current: the row gets a new generation when the policy changes to that mode, and then
     * no socket records a pair of this generation. So choose_backend handles the mode. */
    if (unlikely(!is_current(&attempt->state->pair, &attempt->keys->frontend, attempt->generation)))
        return choose_backend(ctx, *attempt, backend);
    error = read_current(&attempt->state->pair, attempt->generation, backend);
    if (!error)
        error = admit(attempt);
    if (!error)
        count_redirect(&attempt->caller->policy_id);
    return error;
}

/* Decides about a call, and changes its address if it is redirected. */
static __always_inline void decide(struct bpf_sock_addr *ctx, const struct frontend_key *call, bool ipv6) {
    struct backend_cgroup_key caller;
    union call_keys keys;
    struct attempt attempt = {.keys = &keys, .caller = &caller};
    struct endpoint backend;
    int error;

    if (!may_be_ours(call))
        return;
    keys.frontend = *call;
    error = try_redirect(ctx, &attempt, &backend);
    /* Starts the program from its beginning. It returns only when the kernel has done that 33 times for this call; then
     * the call passes. A loop would not do: the verifier of kernels before 6.17 also follows paths that a processor
     * takes only by speculation, and in a loop it would not come to an end. */
    if (unlikely(error == -EAGAIN))
        bpf_tail_call(ctx, OWN_PROGRAM, 0);
    if (error)
        note_direct_call(ctx, &keys.frontend);
    else
        set_endpoint(ctx, &backend, ipv6);
    barrier_var(error); /* otherwise the compiler would store on the stack whether it is 0 */
    if (unlikely(is_watched()) && (!error || error <= PASSED(0)))
        record_decision(ctx, &keys.frontend, error ? 1 - PASSED_BASE - error : 0, ipv6);
}
