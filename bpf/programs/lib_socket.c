/* What a socket was redirected to: it keeps its backend (P16), and there is a way back (P15). */

static __always_inline struct socket_state *get_state(struct bpf_sock_addr *ctx, u64 flags) {
    return bpf_sk_storage_get(SHARED(SOCKET_STATE), ctx->sk, 0, flags);
}

static __always_inline struct socket_more *get_more(struct bpf_sock_addr *ctx, u64 flags) {
    return bpf_sk_storage_get(SHARED(SOCKET_MORE), ctx->sk, 0, flags);
}

/* 1 or 0. The search among many pairs has no branches: without CAP_PERFMON the verifier follows each branch both ways, and
 * the compiler must not turn the sums back into branches. */
static __always_inline u64 is_set_at_all(u64 bits) {
    u64 sign = bits | -bits;

    barrier_var(sign);
    return sign >> 63;
}

static __always_inline u64 is_zero(u64 bits) {
    return is_set_at_all(bits) ^ 1;
}

/* 0 where the pair's frontend is `call`'s and it is the frontend's newest; one that is empty has no port. */
static __always_inline u64 differs_in_frontend(const struct socket_pair *pair, const struct frontend_key *call) {
    return (pair->frontend[0] ^ call->address[0]) | (pair->frontend[1] ^ call->address[1]) |
           (pair->frontend_port ^ (__be16)call->port_protocol) | (pair->flags & PAIR_STALE);
}

static __always_inline u64 differs_in_backend(const struct socket_pair *pair, const __be64 *address, __be16 port) {
    return (pair->backend[0] ^ address[0]) | (pair->backend[1] ^ address[1]) | (pair->backend_port ^ port);
}

static __always_inline u64 is_empty(const struct socket_pair *pair) {
    return is_zero(pair->generation);
}

static __always_inline u64 is_stale(const struct socket_pair *pair) {
    return pair->flags & PAIR_STALE;
}

/* The first of `places` that is set, as a place among the further pairs. */
static __always_inline u32 first_place(u64 places) {
    u64 first = places & -places, place;

    barrier_var(first);
    place = is_set_at_all(first & 0xaaaa) | is_set_at_all(first & 0xcccc) << 1 | is_set_at_all(first & 0xf0f0) << 2 |
            is_set_at_all(first & 0xff00) << 3;
    barrier_var(place);
    return place & (MORE_PAIRS - 1);
}

/* What a socket has for one frontend. */
struct held {
    struct endpoint backend;
    u64 generation; /* 0: nothing */
    u32 flags;
};

/* Reads a pair that another thread may be writing. */
static __always_inline void read_pair(const struct socket_pair *pair, const struct frontend_key *call,
                                      struct held *held) {
    u64 generation = *(volatile u64 *)&pair->generation;
    u64 difference;

    barrier();
    difference = differs_in_frontend(pair, call);
    held->backend.address[0] = pair->backend[0];
    held->backend.address[1] = pair->backend[1];
    held->backend.port = pair->backend_port;
    held->flags = pair->flags;
    barrier();
    held->generation = !difference && *(volatile u64 *)&pair->generation == generation ? generation : 0;
}

/* Whether this pair alone says where `call` goes: the common case. */
static __always_inline bool is_held(const struct socket_pair *pair, const struct frontend_key *call, u64 generation) {
    return *(volatile u64 *)&pair->generation == generation && !(differs_in_frontend(pair, call) | pair->flags);
}

/* -EAGAIN: another thread has written the pair since. */
static __always_inline int read_held(const struct socket_pair *pair, u64 generation, struct endpoint *backend) {
    barrier();
    backend->address[0] = pair->backend[0];
    backend->address[1] = pair->backend[1];
    backend->port = pair->backend_port;
    barrier();
    return *(volatile u64 *)&pair->generation == generation ? 0 : -EAGAIN;
}

/* Finds what a socket has for `call`. -ENOMEM: it has nothing, and there is no room to note anything. */
static __always_inline int find_held(struct bpf_sock_addr *ctx, struct socket_state *state,
                                     const struct frontend_key *call, struct held *held) {
    struct socket_more *more;
    u64 found = 0, room = is_stale(&state->pair);

    read_pair(&state->pair, call, held);
    if (likely(held->generation))
        return 0;
    if (!state->pair.generation)
        return 0;
    more = get_more(ctx, BPF_SK_STORAGE_GET_F_CREATE);
    if (!more)
        return -ENOMEM;
    state->has_more = 1;
#pragma unroll
    for (int i = 0; i < MORE_PAIRS; i++) {
        found |= is_zero(differs_in_frontend(&more->pair[i], call)) << i;
        room |= is_empty(&more->pair[i]) | is_stale(&more->pair[i]);
    }
    if (found)
        read_pair(&more->pair[first_place(found)], call, held);
    return found || room ? 0 : -ENOMEM;
}

static __always_inline void write_pair(struct socket_pair *pair, const struct frontend_key *call,
                                       const struct endpoint *backend, u64 generation) {
    *(volatile u64 *)&pair->generation = 0;
    barrier();
    pair->frontend[0] = call->address[0];
    pair->frontend[1] = call->address[1];
    pair->backend[0] = backend->address[0];
    pair->backend[1] = backend->address[1];
    pair->frontend_port = call->port_protocol;
    pair->backend_port = backend->port;
    pair->flags = 0;
    barrier();
    *(volatile u64 *)&pair->generation = generation;
}

/* The functions below have no pointer that is sometimes NULL: without CAP_PERFMON the verifier of kernels before 6.17
 * refuses a program that would follow one, even where a processor only guesses that it is not NULL. */

/* Brings the pair that the socket has for `call` up to date. Where another thread of the program was first, or the
 * backend is the same, the pair stays, and its backend becomes ours. Else the pair becomes stale: false. */
static __always_inline bool keep_pair(struct socket_pair *pair, const struct frontend_key *call,
                                      struct endpoint *backend, u64 generation) {
    if (pair->generation < generation && differs_in_backend(pair, backend->address, backend->port)) {
        pair->flags = PAIR_STALE;
        return false;
    }
    backend->address[0] = pair->backend[0];
    backend->address[1] = pair->backend[1];
    backend->port = pair->backend_port;
    write_pair(pair, call, backend, generation);
    return true;
}

/* Notes the pair of a socket that has no further ones. -EAGAIN: it needs one. */
static __always_inline int note_first(struct socket_state *state, const struct frontend_key *call,
                                      struct endpoint *backend, u64 generation) {
    int error = 0;

    bpf_spin_lock(&state->lock);
    if (!state->pair.generation)
        write_pair(&state->pair, call, backend, generation);
    else if (differs_in_frontend(&state->pair, call) || !keep_pair(&state->pair, call, backend, generation))
        error = -EAGAIN;
    bpf_spin_unlock(&state->lock);
    return error;
}

/* The same for one that has. A new pair goes where there is none, else in the place of a stale one. */
static __always_inline int note_among(struct socket_state *state, struct socket_more *more,
                                      const struct frontend_key *call, struct endpoint *backend, u64 generation) {
    u64 found = 0, empty = 0, stale = 0;
    bool is_first, kept = false;
    int error = 0;

    bpf_spin_lock(&state->lock);
    is_first = !differs_in_frontend(&state->pair, call);
#pragma unroll
    for (int i = 0; i < MORE_PAIRS; i++) {
        found |= is_zero(differs_in_frontend(&more->pair[i], call)) << i;
        empty |= is_empty(&more->pair[i]) << i;
        stale |= is_stale(&more->pair[i]) << i;
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

/* Notes that the socket's calls to `call` go to `backend`, which the frontend row of that generation has; `backend` may become
 * that of another thread of the program, which was first. -ENOMEM: other threads took the room that find_held saw. */
static __always_inline int note_pair(struct bpf_sock_addr *ctx, struct socket_state *state,
                                     const struct frontend_key *call, struct endpoint *backend, u64 generation) {
    struct socket_more *more;

    if (likely(!state->has_more) && likely(!note_first(state, call, backend, generation)))
        return 0;
    more = get_more(ctx, BPF_SK_STORAGE_GET_F_CREATE);
    if (!more)
        return -ENOMEM;
    state->has_more = 1;
    return note_among(state, more, call, backend, generation);
}

static __always_inline void turn_pair(struct socket_pair *pair, const struct frontend_key *peer) {
    pair->flags |= PAIR_DIRECT * is_zero(differs_in_backend(pair, peer->address, peer->port_protocol));
}

/* A connected IPv6 socket with a mapped peer hands its datagrams to IPv4 with the peer's address, as if the program had
 * named it. */
static __always_inline bool is_sent_to_peer(struct bpf_sock_addr *ctx, const struct frontend_key *peer) {
    return ctx->user_family == AF_INET && ctx->family == AF_INET6 && ctx->sk->dst_ip4 == peer->address[1] >> 32;
}

/* The program calls `peer` without us: where that is a backend of ours, it sees the backend's address from now on. */
static __always_inline void turn_to_backend(struct bpf_sock_addr *ctx, const struct frontend_key *peer) {
    struct socket_state *state = get_state(ctx, 0);
    struct socket_more *more;

    if (!state || is_sent_to_peer(ctx, peer))
        return;
    bpf_spin_lock(&state->lock);
    turn_pair(&state->pair, peer);
    bpf_spin_unlock(&state->lock);
    if (!state->has_more)
        return;
    more = get_more(ctx, 0);
    if (!more)
        return;
    bpf_spin_lock(&state->lock);
#pragma unroll
    for (int i = 0; i < MORE_PAIRS; i++)
        turn_pair(&more->pair[i], peer);
    bpf_spin_unlock(&state->lock);
}

/* 0 where the program sees the pair's frontend in the place of `peer`. */
static __always_inline u64 differs_in_peer(const struct socket_pair *pair, const struct frontend_key *peer) {
    return differs_in_backend(pair, peer->address, peer->port_protocol) | (pair->flags & PAIR_DIRECT);
}

/* Reads the pair's frontend. -ENOENT: another thread writes the pair at this moment, for other addresses. */
static __always_inline int read_frontend(const struct socket_pair *pair, const struct frontend_key *peer,
                                         struct endpoint *frontend) {
    u64 generation = *(volatile u64 *)&pair->generation;
    u64 difference;

    barrier();
    difference = differs_in_peer(pair, peer);
    frontend->address[0] = pair->frontend[0];
    frontend->address[1] = pair->frontend[1];
    frontend->port = pair->frontend_port;
    barrier();
    return generation && !difference && *(volatile u64 *)&pair->generation == generation ? 0 : -ENOENT;
}

/* Finds the frontend behind which the socket saw `peer`. -ENOENT: the socket was not redirected there. */
static __always_inline int find_frontend(struct bpf_sock_addr *ctx, const struct frontend_key *peer,
                                         struct endpoint *frontend) {
    struct socket_state *state = get_state(ctx, 0);
    struct socket_more *more;
    u64 found = 0;

    if (!state)
        return -ENOENT;
    if (likely(!read_frontend(&state->pair, peer, frontend)))
        return 0;
    if (!state->has_more)
        return -ENOENT;
    more = get_more(ctx, 0);
    if (!more)
        return -ENOENT;
#pragma unroll
    for (int i = 0; i < MORE_PAIRS; i++)
        found |= is_zero(differs_in_peer(&more->pair[i], peer)) << i;
    return found ? read_frontend(&more->pair[first_place(found)], peer, frontend) : -ENOENT;
}

/* An MPTCP socket connects by a TCP socket of its own, which is the one that was redirected, and getpeername runs on the
 * MPTCP socket. Both have the same addresses, so the TCP socket is found by them. */
static __always_inline bool is_mptcp(struct bpf_sock_addr *ctx) {
    return ctx->protocol == IPPROTO_MPTCP;
}

/* The look-up's key is made of whole words (types.h): struct bpf_sock_tuple has the peer's address, ours, and the ports. */
static __always_inline struct bpf_sock *find_subflow(struct bpf_sock_addr *ctx, const struct frontend_key *peer) {
    u64 ports = (__be16)peer->port_protocol | (u32)bpf_htons(ctx->sk->src_port) << 16;
    u64 tuple[5];

    if (!peer->address[0] && (u32)peer->address[1] == bpf_htonl(AF_INET_MAPPED)) {
        tuple[0] = peer->address[1] >> 32 | (u64)ctx->sk->src_ip4 << 32;
        tuple[1] = ports;
        return bpf_sk_lookup_tcp(ctx, (struct bpf_sock_tuple *)tuple, sizeof(((struct bpf_sock_tuple *)0)->ipv4),
                                 BPF_F_CURRENT_NETNS, 0);
    }
    tuple[0] = peer->address[0];
    tuple[1] = peer->address[1];
    tuple[2] = ctx->sk->src_ip6[0] | (u64)ctx->sk->src_ip6[1] << 32;
    tuple[3] = ctx->sk->src_ip6[2] | (u64)ctx->sk->src_ip6[3] << 32;
    tuple[4] = ports;
    return bpf_sk_lookup_tcp(ctx, (struct bpf_sock_tuple *)tuple, sizeof(((struct bpf_sock_tuple *)0)->ipv6),
                             BPF_F_CURRENT_NETNS, 0);
}

static __always_inline int find_frontend_of_subflow(struct bpf_sock_addr *ctx, const struct frontend_key *peer,
                                                    struct endpoint *frontend) {
    struct bpf_sock *subflow = find_subflow(ctx, peer);
    struct socket_state *state;
    int error = -ENOENT;

    if (!subflow)
        return -ENOENT;
    state = bpf_sk_storage_get(SHARED(SOCKET_STATE), subflow, 0, 0);
    if (state)
        error = read_frontend(&state->pair, peer, frontend);
    bpf_sk_release(subflow);
    return error;
}

/* Finds the frontend behind which the socket sees its peer. */
static __always_inline int find_peer(struct bpf_sock_addr *ctx, const struct frontend_key *peer,
                                     struct endpoint *frontend) {
    return unlikely(is_mptcp(ctx)) ? find_frontend_of_subflow(ctx, peer, frontend) : find_frontend(ctx, peer, frontend);
}
