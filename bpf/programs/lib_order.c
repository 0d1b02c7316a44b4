/* How programs read a complete row, although another CPU may be writing it.
 *
 * x86 keeps loads in their order, and stores as well. So it is enough to keep the compiler from reordering them; the
 * generations then show whether a row changed while it was read. Other processors, such as arm64, reorder both
 * (WEAK_ORDER):
 *
 * - What programs write in place (socket pairs, decisions) is put in order by full barriers on both sides. Those are
 *   atomic operations that return the former value: the kernel orders them fully (Documentation/atomic_t.txt), and its
 *   JIT for arm64 makes LDADDAL of them, or a loop that ends with DMB ISH.
 * - Rows that the kernel copies into a map are written in any order, so barriers of the reader are not enough. Such a
 *   row has a seal, a checksum of its other words (bpf/maps/packing.py seal). A program compares it with what it has
 *   read: words of two rows do not have the seal of either. */

static __always_inline void order(void) {
#ifdef WEAK_ORDER
    /* We add 1: for an addition of 0, LLVM would emit another operation, which is not among those that
     * bpf/lifecycle/kernel_features.py probes. */
    u64 word = 0, former = __sync_fetch_and_add(&word, 1);

    barrier_var(former); /* LLVM would otherwise choose the operation that returns nothing, and orders nothing */
#endif
    barrier();
}

static __always_inline u64 mix(u64 seal, u64 word) {
    return seal * HASH_FACTOR + word;
}

/* The seal of a row of `backends` or `affinity`. */
static __always_inline u64 seal_of(u64 generation, const struct endpoint *backend) {
    return mix(mix(mix(generation, backend->address[0]), backend->address[1]), backend->port);
}

/* Whether words that give the seal `mixed` are all from one row. `seal` is that row's; it does not matter when it is
 * read. */
static __always_inline bool is_whole(u64 mixed, const u64 *seal) {
#ifdef WEAK_ORDER
    return mixed == *(volatile u64 *)seal;
#else
    return true;
#endif
}

/* Makes `row` point to where the row can be read: in place, or in `copy`. False: it is being written. */
static __always_inline bool open_row(const struct frontend_row **row, struct frontend_row *copy) {
#ifdef WEAK_ORDER
    const u64 *word = (const u64 *)copy;
    u64 mixed = 0;

    *copy = **row;
    barrier(); /* otherwise the compiler might read the row again */
#pragma unroll
    for (int i = 0; i < offsetof(struct frontend_row, seal) / sizeof(u64); i++)
        mixed = mix(mixed, word[i]);
    *row = copy;
    return is_whole(mixed, &copy->seal);
#else
    return true;
#endif
}

/* A row is read in place, between begin_reading and end_reading. The kernel writes a row from its head to its tail. A
 * reader that sees the same generation first in the tail and then in the head has read one complete row. */
static __always_inline u64 begin_reading(const struct frontend_row *row) {
    u64 generation = *(volatile u64 *)&row->generation_tail;

    barrier();
    return generation;
}

/* Whether everything that was read since begin_reading is of that generation, and of the row for `call`. */
static __always_inline bool end_reading(const struct frontend_row *row, u64 generation,
                                        const struct frontend_key *call) {
    bool same_key = same_address(row->key.address, call->address) && row->key.port_protocol == call->port_protocol;

    barrier();
    return same_key && *(volatile u64 *)&row->generation == generation;
}
