/* Which calls are exempt from redirects: all of them when the lease is over, otherwise those of some callers. */

/* Compares signed numbers: the clocks of two CPUs may differ by a tick, so the lease may have been renewed "later" than
 * now. */
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

/* Whether the client, a network namespace, is among the clients that the row's policy redirects (P21). Its place from 0
 * to 99 depends on its cookie only, so a client that is redirected at 10 percent is redirected at 50 percent as well.
 * The kernel numbers namespaces one after another, and the product spreads such numbers evenly (bpf/maps/hashes.py
 * client_place). */
static __always_inline bool in_share(struct bpf_sock_addr *ctx, const struct frontend_row *row) {
    u64 mixed = bpf_get_netns_cookie(ctx) * HASH_FACTOR;

    return (mixed >> 32) * 100 >> 32 < *(volatile u8 *)&row->percentage;
}

/* Whether the caller is in the agent's own cgroup (P17): the agent, or another process of its container. */
static __always_inline bool from_agent(void) {
    u64 cgroup_id = bpf_get_current_cgroup_id();
    const u64 *own = ONLY_ROW(AGENT_CGROUP);

    return cgroup_id == *own;
}

/* Whether the caller runs in one of the policy's Pods (P12), by looking for the Pods' cgroups among its ancestors. The
 * row's bits save nearly all callers the look-up. */
static __always_inline bool from_backend(const struct frontend_row *row, struct backend_cgroup_key *caller) {
#pragma unroll
    for (u32 i = 0; i < MAX_CGROUP_LEVELS; i++) {
        u32 level = row->skip_from + i;
        u64 cgroup_id;

        if (level > row->skip_to)
            break;
        cgroup_id = bpf_get_current_ancestor_cgroup_id(level);
        if (!cgroup_id)
            break;
        if (likely(!(row->cgroup_bits >> (cgroup_id & 63) & 1)))
            continue;
        caller->cgroup_id = cgroup_id;
        if (backend_cgroups.lookup(caller))
            return true;
    }
    return false;
}
