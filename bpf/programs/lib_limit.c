/* The limit (P11): second and count in one word, so that they change together. */

#define WINDOW_TRIES 3 /* a swap fails only when another CPU was at the same word within nanoseconds */

/* Whether this call is among the first `limit` of its second. */
static __always_inline bool take_from_window(u64 *service_id, u32 limit) {
    u64 *window = windows.lookup(service_id);
    u64 second = bpf_ktime_get_coarse_ns() / NANOSECONDS;

    /* The row is made before the limit is; without one there is nothing to count in, and passing is always right. */
    if (!window)
        return false;
        /* The CPU that swaps a new second in has its first call. A CPU whose clock is behind never winds it back. */
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
