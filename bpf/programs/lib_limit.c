/* Limits per second, for redirects (P11) and for recorded decisions. A window holds the second and the number of calls
 * in one word, so that both change together. */

#define WINDOW_TRIES 3 /* a swap fails only if another CPU changes the same word within the same nanoseconds */

/* Whether this call is among the first `limit` of its second. The CPU whose swap begins a new second has the first
 * call of that second. A CPU whose clock is behind counts in the newer second, and never sets it back. */
static __always_inline bool take_from_window(u64 *window, u32 limit) {
    u64 second = bpf_ktime_get_coarse_ns() / NANOSECONDS;

#pragma unroll
    for (int i = 0; i < WINDOW_TRIES; i++) {
        u64 seen = *(volatile u64 *)window;

        if (seen >> 32 >= second)
            break;
        if (__sync_val_compare_and_swap(window, seen, second << 32 | 1) == seen)
            return true;
    }
    return (u32)__sync_fetch_and_add(window, 1) < limit;
}

/* Whether the policy's limit allows one more redirect. */
static __always_inline bool within_limit(u64 *policy_id, u32 limit) {
    u64 *window = windows.lookup(policy_id);

    /* The agent makes the window before it writes the limit. If there is none, nothing can be counted; to let the call
     * pass is never wrong. */
    return window && take_from_window(window, limit);
}
