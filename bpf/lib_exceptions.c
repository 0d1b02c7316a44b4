/* Who is not redirected, and counting. */

static __always_inline void count_pass(u32 service_id, enum pass_reason reason) {
    struct counters_row *row = counters.lookup(&service_id);

    if (!row)
        return;
#pragma unroll
    for (u32 i = 0; i < PASS_REASONS; i++) {
        u64 *passes = &row->passes[i];

        barrier_var(passes);
        /* Atomic although the row is this CPU's own: a preempted program and its successor count on one CPU. */
        if (i == reason)
            __sync_fetch_and_add(passes, 1);
    }
}

static __always_inline void count_redirect(u32 service_id, bool by_affinity) {
    struct counters_row *row = counters.lookup(&service_id);

    if (!row)
        return;
    __sync_fetch_and_add(&row->redirects, 1);
    if (by_affinity)
        __sync_fetch_and_add(&row->affinity_hits, 1);
}

/* The clocks of two CPUs may differ by a tick, so the lease can be younger than now. */
static __always_inline bool lease_expired(const struct config_row *settings, u64 now) {
    u32 zero = 0;
    u64 *renewed = lease.lookup(&zero);

    return settings->lease_ns && (!renewed || (s64)(now - *renewed) > (s64)settings->lease_ns);
}

/* Whether the caller is in the cgroup of one of the policy's Pods (P12). */
static __always_inline bool from_backend(const struct frontend_row *row) {
    struct backend_cgroup_key key = {.service_id = row->service_id};

    for (u32 i = 0; i < MAX_CGROUP_LEVELS; i++) {
        u32 level = row->skip_from + i;

        if (level > row->skip_to)
            break;
        key.cgroup_id = bpf_get_current_ancestor_cgroup_id(level);
        if (!key.cgroup_id)
            break;
        if (backend_cgroups.lookup(&key))
            return true;
    }
    return false;
}

/* The reason for which the call is left alone, or PASS_REASONS. */
static __always_inline enum pass_reason find_exception(struct bpf_sock_addr *ctx, const struct frontend_row *row,
                                                       u64 now) {
    u32 zero = 0;
    struct config_row *settings = config.lookup(&zero);

    if (!settings || lease_expired(settings, now))
        return PASS_LEASE;
    if (row->flags & FRONTEND_NO_HOST && bpf_get_netns_cookie(ctx) == settings->host_netns)
        return PASS_FROM_HOST;
    if (from_backend(row))
        return PASS_FROM_BACKEND;
    return PASS_REASONS;
}
