/* What a socket remembers: pairs of a frontend that its program called and the backend to which these calls go. It
 * keeps that backend (P16). lib_way_back.c uses the pairs in the other direction. */

static __always_inline struct socket_state *get_state(struct bpf_sock_addr *ctx, u64 flags) {
    return bpf_sk_storage_get(SHARED(SOCKET_STATE), ctx->sk, 0, flags);
}

static __always_inline struct socket_more *get_more(struct bpf_sock_addr *ctx, u64 flags) {
    return bpf_sk_storage_get(SHARED(SOCKET_MORE), ctx->sk, 0, flags);
}

/* 1 when any bit is set, else 0. The search among many pairs uses sums of these instead of branches: without
 * CAP_PERFMON the verifier follows both sides of every branch, even of one that can't be taken. barrier_var keeps
 * the compiler from turning the sums back into branches. */
static __always_inline u64 is_set_at_all(u64 bits) {
    u64 sign = bits | -bits;

    barrier_var(sign);
    return sign >> 63;
}

static __always_inline u64 is_zero(u64 bits) {
    return is_set_at_all(bits) ^ 1;
}

/* The last word of a pair: frontend_port, backend_port << 16, flags << 32. */
static __always_inline u64 ports_and_flags(const struct socket_pair *pair) {
    u64 word;

    __builtin_memcpy(&word, &pair->frontend_port, sizeof(word));
    return word;
}

/* 0 when the pair is for the frontend that `call` names and has none of `flags`. */
static __always_inline u64 differs_in_frontend(const struct socket_pair *pair, const struct frontend_key *call,
                                               u64 flags) {
    return (pair->frontend[0] ^ call->address[0]) | (pair->frontend[1] ^ call->address[1]) |
           ((ports_and_flags(pair) ^ (__be16)call->port_protocol) & (0xffff | flags << 32));
}

/* 0 when the pair has this backend and none of `flags`. */
static __always_inline u64 differs_in_backend(const struct socket_pair *pair, const __be64 *address, __be16 port,
                                              u64 flags) {
    return (pair->backend[0] ^ address[0]) | (pair->backend[1] ^ address[1]) |
           ((ports_and_flags(pair) ^ (u64)port << 16) & (0xffff0000 | flags << 32));
}

static __always_inline u64 is_empty(const struct socket_pair *pair) {
    return is_zero(pair->generation);
}

static __always_inline u64 is_stale(const struct socket_pair *pair) {
    return pair->flags & PAIR_STALE;
}

/* Appends a bit. Without barrier_var the compiler would collect the bits only at the end, and until then keep on the
 * stack what they are computed from. */
static __always_inline u64 append(u64 bits, u64 bit) {
    bits = bits << 1 | bit;
    barrier_var(bits);
    return bits;
}

/* Index, among the further pairs, of the lowest bit that is set in `places`. */
static __always_inline u32 first_place(u64 places) {
    u64 first = places & -places, place;

    barrier_var(first);
    place = is_set_at_all(first & 0xaaaa) | is_set_at_all(first & 0xcccc) << 1 | is_set_at_all(first & 0xf0f0) << 2 |
            is_set_at_all(first & 0xff00) << 3;
    barrier_var(place);
    return place & (MORE_PAIRS - 1);
}

/* The backend that a socket has for one frontend. */
struct kept_backend {
    struct endpoint backend;
    u64 generation; /* 0: the socket has none */
    u32 flags;
};

/* Reads a pair, which another thread of the calling program may be writing at the same time. */
static __always_inline void read_pair(const struct socket_pair *pair, const struct frontend_key *call,
                                      struct kept_backend *kept) {
    u64 generation = *(volatile u64 *)&pair->generation;
    u64 difference;

    order();
    difference = differs_in_frontend(pair, call, PAIR_STALE);
    kept->backend.address[0] = pair->backend[0];
    kept->backend.address[1] = pair->backend[1];
    kept->backend.port = pair->backend_port;
    kept->flags = pair->flags;
    order();
    kept->generation = !difference && *(volatile u64 *)&pair->generation == generation ? generation : 0;
}

/* Whether this pair is for `call` and of the frontend's present generation: then it says where the call goes, and
 * nothing else needs to be looked at. This is the common case. */
static __always_inline bool is_current(const struct socket_pair *pair, const struct frontend_key *call,
                                       u64 generation) {
    return *(volatile u64 *)&pair->generation == generation && !differs_in_frontend(pair, call, ~0U);
}

/* Copies the backend of a pair that is_current. -EAGAIN: another thread has written the pair meanwhile. */
static __always_inline int read_current(const struct socket_pair *pair, u64 generation, struct endpoint *backend) {
    order();
    backend->address[0] = pair->backend[0];
    backend->address[1] = pair->backend[1];
    backend->port = pair->backend_port;
    order();
    return *(volatile u64 *)&pair->generation == generation ? 0 : -EAGAIN;
}

/* Finds the backend that the socket has for `call`. -ENOMEM: it has none, and no room to record one. */
static __always_inline int find_kept(struct bpf_sock_addr *ctx, struct socket_state *state,
                                     const struct frontend_key *call, struct kept_backend *kept) {
    struct socket_more *more;
    u64 found = 0, room = is_stale(&state->pair);

    read_pair(&state->pair, call, kept);
    if (likely(kept->generation))
        return 0;
    if (!state->pair.generation)
        return 0;
    more = get_more(ctx, BPF_SK_STORAGE_GET_F_CREATE);
    if (!more)
        return -ENOMEM;
    state->has_more = 1;
#pragma unroll
    for (int i = MORE_PAIRS - 1; i >= 0; i--) {
        found = append(found, is_zero(differs_in_frontend(&more->pair[i], call, PAIR_STALE)));
        room |= is_empty(&more->pair[i]) | is_stale(&more->pair[i]);
        barrier_var(room);
    }
    if (found)
        read_pair(&more->pair[first_place(found)], call, kept);
    return found || room ? 0 : -ENOMEM;
}

static __always_inline void write_pair(struct socket_pair *pair, const struct frontend_key *call,
                                       const struct endpoint *backend, u64 generation) {
    *(volatile u64 *)&pair->generation = 0;
    order();
    pair->frontend[0] = call->address[0];
    pair->frontend[1] = call->address[1];
    pair->backend[0] = backend->address[0];
    pair->backend[1] = backend->address[1];
    pair->frontend_port = call->port_protocol;
    pair->backend_port = backend->port;
    pair->flags = 0;
    order();
    *(volatile u64 *)&pair->generation = generation;
}

/* The functions below take no pointer that may be NULL. Without CAP_PERFMON, the verifier of kernels before 6.17
 * refuses a program that dereferences one on a path that a processor takes only by speculation, even behind a check
 * for NULL. */

/* Tries to keep the pair that the socket has for `call`. If the pair has the same backend, or another thread of the
 * program has written it for a generation as new as ours, it is brought up to date, `backend` becomes its backend,
 * and the answer is true. Otherwise the pair becomes stale, and the answer is false. */
static __always_inline bool keep_pair(struct socket_pair *pair, const struct frontend_key *call,
                                      struct endpoint *backend, u64 generation) {
    if (pair->generation < generation && differs_in_backend(pair, backend->address, backend->port, 0)) {
        pair->flags = PAIR_STALE;
        return false;
    }
    backend->address[0] = pair->backend[0];
    backend->address[1] = pair->backend[1];
    backend->port = pair->backend_port;
    write_pair(pair, call, backend, generation);
    return true;
}

/* Records the pair in a socket that has at most one. -EAGAIN: the socket needs further pairs. */
static __always_inline int record_first(struct socket_state *state, const struct frontend_key *call,
                                        struct endpoint *backend, u64 generation) {
    int error = 0;

    bpf_spin_lock(&state->lock);
    if (!state->pair.generation)
        write_pair(&state->pair, call, backend, generation);
    else if (differs_in_frontend(&state->pair, call, PAIR_STALE) || !keep_pair(&state->pair, call, backend, generation))
        error = -EAGAIN;
    bpf_spin_unlock(&state->lock);
    return error;
}

/* Records the pair in a socket that has further pairs. A new pair goes to an empty place, or else replaces a stale
 * pair. */
static __always_inline int record_among(struct socket_state *state, struct socket_more *more,
                                        const struct frontend_key *call, struct endpoint *backend, u64 generation) {
    u64 found = 0, empty = 0, stale = 0;
    bool is_first, kept = false;
    int error = 0;

    bpf_spin_lock(&state->lock);
    is_first = !differs_in_frontend(&state->pair, call, PAIR_STALE);
#pragma unroll
    for (int i = MORE_PAIRS - 1; i >= 0; i--) {
        found = append(found, is_zero(differs_in_frontend(&more->pair[i], call, PAIR_STALE)));
        empty = append(empty, is_empty(&more->pair[i]));
        stale = append(stale, is_stale(&more->pair[i]));
    }
    if (is_first)
        kept = keep_pair(&state->pair, call, backend, generation);
    else if (found)
        kept = keep_pair(&more->pair[first_place(found)], call, backend, generation);
    if (!kept) {
        u64 places = empty ? empty : stale | found;

        if (is_empty(&state->pair) || (!empty && is_stale(&state->pair)))
            write_pair(&state->pair, call, backend, generation);
        else if (places)
            write_pair(&more->pair[first_place(places)], call, backend, generation);
        else
            error = -ENOMEM;
    }
    bpf_spin_unlock(&state->lock);
    return error;
}

/* Records that the socket's calls to `call` go to `backend`, which the frontend row of that generation names. If
 * another thread of the program recorded a backend first, `backend` becomes that one. -ENOMEM: other threads have
 * taken the room that find_kept saw. */
static __always_inline int record_pair(struct bpf_sock_addr *ctx, struct socket_state *state,
                                       const struct frontend_key *call, struct endpoint *backend, u64 generation) {
    struct socket_more *more;

    if (likely(!state->has_more) && likely(!record_first(state, call, backend, generation)))
        return 0;
    more = get_more(ctx, BPF_SK_STORAGE_GET_F_CREATE);
    if (!more)
        return -ENOMEM;
    state->has_more = 1;
    return record_among(state, more, call, backend, generation);
}
