/* Who is not redirected, and counting. */

static __always_inline void count_pass(u64 *service_id, enum pass_reason reason) {
    struct counters_row *row = counters.lookup(service_id);

    /* Atomic although the row is this CPU's own: a preempted program and its successor count on one CPU. */
    if (row)
        __sync_fetch_and_add(&row->passes[reason], 1);
}

static __always_inline void count_redirect(u64 *service_id, u64 affinity_hits) {
    struct counters_row *row = counters.lookup(service_id);

    if (!row)
        return;
    __sync_fetch_and_add(&row->redirects, 1);
    __sync_fetch_and_add(&row->affinity_hits,
                         affinity_hits); /* adding 0 is less than the verifier's work on a branch */
}

/* The clocks of two CPUs may differ by a tick, so the lease can be younger than now. */
static __always_inline bool lease_expired(void) {
    u64 now = bpf_ktime_get_coarse_ns();
    const struct config_row *settings = ONLY_ROW(CONFIG);
    const u64 *renewed = ONLY_ROW(LEASE);

    return settings->lease_ns && (s64)(now - *renewed) > (s64)settings->lease_ns;
}

static __always_inline bool from_host(struct bpf_sock_addr *ctx) {
    u64 netns = bpf_get_netns_cookie(ctx);
    const struct config_row *settings = ONLY_ROW(CONFIG);

    return netns == settings->host_netns;
}

/* Whether the agent itself calls, or what runs beside it in its container (P17). */
static __always_inline bool from_agent(void) {
    const u64 *own = ONLY_ROW(AGENT_CGROUP);

    return bpf_get_current_cgroup_id() == *own;
}

/* Whether the caller is in the cgroup of one of the policy's Pods (P12). */
static __always_inline bool from_backend(const struct frontend_row *row, struct backend_cgroup_key *caller) {
#pragma unroll
    for (u32 i = 0; i < MAX_CGROUP_LEVELS; i++) {
        u32 level = row->skip_from + i;

        if (level > row->skip_to)
            break;
        caller->cgroup_id = bpf_get_current_ancestor_cgroup_id(level);
        if (!caller->cgroup_id)
            break;
        if (backend_cgroups.lookup(caller))
            return true;
    }
    return false;
}
