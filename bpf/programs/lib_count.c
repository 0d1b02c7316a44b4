/* Counting redirects and passes of a policy, for the metrics. */

static __always_inline void count_pass(u64 *policy_id, enum pass_reason reason) {
    struct counters_row *row = counters.lookup(policy_id);

    /* Atomic although the row belongs to this CPU: another program may preempt this one here and count as well. */
    if (row)
        __sync_fetch_and_add(&row->passes[reason], 1);
}

static __always_inline void count_redirect(u64 *policy_id) {
    struct counters_row *row = counters.lookup(policy_id);

    if (row)
        __sync_fetch_and_add(&row->redirects, 1);
}

static __always_inline void count_affinity_hit(u64 *policy_id) {
    struct counters_row *row = counters.lookup(policy_id);

    if (row)
        __sync_fetch_and_add(&row->affinity_hits, 1);
}
