/* The programs record their decisions for watchers (run.py monitor, log.redirects). While there is no watcher, a call
 * of a frontend reads one more word, and other calls do nothing more. */

static __always_inline bool is_watched(void) {
    const struct watch_row *watch = ONLY_ROW(WATCH);

    return *(volatile u64 *)&watch->until;
}

/* Whether to record one more decision. Watchers renew `until` all the time. After the last watcher has ended, in
 * whatever way, that time passes, and the next call of a frontend sets `until` to 0. */
static __always_inline bool admit_decision(struct watch_row *watch, u64 now) {
    u64 until = *(volatile u64 *)&watch->until;

    if ((s64)(now - until) > 0) {
        __sync_val_compare_and_swap(&watch->until, until, 0);
        return false;
    }
    if (take_from_window(&watch->window, DECISIONS_PER_SECOND))
        return true;
    __sync_fetch_and_add(&watch->dropped, 1);
    return false;
}

/* The hook that the program is loaded for. connect and sendmsg share one compiled program, and the loader replaces this
 * number in each copy of it. */
static __always_inline u16 own_hook(void) {
    u64 hook;

    asm volatile("%0 = %1" : "=r"(hook) : "i"(OWN_HOOK));
    return hook;
}

/* `call` is the frontend that the program called, `reason` as in struct decision_row. The context already has the
 * address to which the call goes. */
static __always_inline void record_decision(struct bpf_sock_addr *ctx, const struct frontend_key *call, u16 reason,
                                            bool ipv6) {
    struct watch_row *watch = ONLY_ROW(WATCH);
    const struct frontend_row *frontend;
    struct decision_row *row;
    struct frontend_key target;
    u64 now = bpf_ktime_get_coarse_ns(), number, key;

    if (!admit_decision(watch, now))
        return;
    number = __sync_fetch_and_add(&watch->recorded, 1) + 1;
    key = number % MAX_DECISIONS; /* the map reads the lower half of it */
    row = decisions.lookup((u32 *)&key);
    if (!row)
        return;
    *(volatile u64 *)&row->number = 0;
    order();
    get_call(ctx, &target, ipv6);
    row->decided_at = now;
    row->frontend = *call;
    row->target.address[0] = target.address[0];
    row->target.address[1] = target.address[1];
    row->target.port = (__be16)target.port_protocol;
    row->client_netns = bpf_get_netns_cookie(ctx);
    row->cgroup_id = bpf_get_current_cgroup_id();
    row->thread_and_process = bpf_get_current_pid_tgid();
    row->reason = reason;
    row->hook = own_hook();
    frontend = frontends.lookup((void *)call);
    row->policy_id = frontend ? frontend->policy_id : 0;
    order();
    *(volatile u64 *)&row->number = number;
}
