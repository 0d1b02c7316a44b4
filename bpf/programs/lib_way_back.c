/* The way back: from a socket's backend to the frontend that its program called, whose address the program sees
 * (P15). */

/* Marks the pair if its backend is `peer`. */
static __always_inline void mark_direct(struct socket_pair *pair, const struct frontend_key *peer) {
    pair->flags |= PAIR_DIRECT * is_zero(differs_in_backend(pair, peer->address, peer->port_protocol, 0));
}

/* Whether the kernel, and not the calling program, names the address. When a program sends on an IPv6 socket that is
 * connected to a mapped address, the kernel passes the datagram to IPv4 together with the peer's address. sendmsg4 then
 * sees that address as if the program had named it. */
static __always_inline bool is_sent_to_peer(struct bpf_sock_addr *ctx, const struct frontend_key *peer) {
    return ctx->user_family == AF_INET && ctx->family == AF_INET6 && ctx->sk->dst_ip4 == peer->address[1] >> 32;
}

/* The calling program names `peer` itself, and is not redirected. If `peer` is a backend that the socket was redirected
 * to before, the program must see the backend's own address from now on (P15). */
static __always_inline void note_direct_call(struct bpf_sock_addr *ctx, const struct frontend_key *peer) {
    struct socket_state *state = get_state(ctx, 0);
    struct socket_more *more;

    if (!state || is_sent_to_peer(ctx, peer))
        return;
    bpf_spin_lock(&state->lock);
    mark_direct(&state->pair, peer);
    bpf_spin_unlock(&state->lock);
    if (!state->has_more)
        return;
    more = get_more(ctx, 0);
    if (!more)
        return;
    bpf_spin_lock(&state->lock);
#pragma unroll
    for (int i = 0; i < MORE_PAIRS; i++)
        mark_direct(&more->pair[i], peer);
    bpf_spin_unlock(&state->lock);
}

/* 0 when the pair's backend is `peer` and the program must see the pair's frontend in its place. */
static __always_inline u64 differs_in_peer(const struct socket_pair *pair, const struct frontend_key *peer) {
    return differs_in_backend(pair, peer->address, peer->port_protocol, PAIR_DIRECT);
}

/* Copies the pair's frontend, if its backend is `peer`. -ENOENT: it is not, or another thread is writing the pair at
 * this moment, for other addresses. */
static __always_inline int read_frontend(const struct socket_pair *pair, const struct frontend_key *peer,
                                         struct endpoint *frontend) {
    u64 generation = *(volatile u64 *)&pair->generation;
    u64 difference;

    order();
    difference = differs_in_peer(pair, peer);
    frontend->address[0] = pair->frontend[0];
    frontend->address[1] = pair->frontend[1];
    frontend->port = pair->frontend_port;
    order();
    return generation && !difference && *(volatile u64 *)&pair->generation == generation ? 0 : -ENOENT;
}

static __always_inline int read_frontend_among(const struct socket_more *more, const struct frontend_key *peer,
                                               struct endpoint *frontend) {
    u64 found = 0;

#pragma unroll
    for (int i = MORE_PAIRS - 1; i >= 0; i--)
        found = append(found, is_zero(differs_in_peer(&more->pair[i], peer)));
    return found ? read_frontend(&more->pair[first_place(found)], peer, frontend) : -ENOENT;
}

/* Finds the frontend that the program called when the socket was redirected to `peer`. -ENOENT: it never was. */
static __always_inline int find_frontend(struct bpf_sock_addr *ctx, const struct frontend_key *peer,
                                         struct endpoint *frontend) {
    struct socket_state *state = get_state(ctx, 0);
    struct socket_more *more;

    if (!state)
        return -ENOENT;
    if (likely(!read_frontend(&state->pair, peer, frontend)))
        return 0;
    if (!state->has_more)
        return -ENOENT;
    more = get_more(ctx, 0);
    return more ? read_frontend_among(more, peer, frontend) : -ENOENT;
}

/* An MPTCP socket connects through a TCP socket of its own, its subflow. The subflow is what was redirected, and has
 * the record, but getpeername runs on the MPTCP socket. Both have the same addresses, by which we find the subflow. */
static __always_inline bool is_mptcp(struct bpf_sock_addr *ctx) {
    return ctx->protocol == IPPROTO_MPTCP;
}

/* The caller must release what this returns. The key of the look-up, struct bpf_sock_tuple, is written as whole words
 * (types.h): the peer's address, ours, both ports. */
static __always_inline struct bpf_sock *find_subflow(struct bpf_sock_addr *ctx, const struct frontend_key *peer) {
    u64 ports = (__be16)peer->port_protocol | (u32)bpf_htons(ctx->sk->src_port) << 16;
    struct bpf_sock *found;
    u64 tuple[5];

    if (!peer->address[0] && (u32)peer->address[1] == bpf_htonl(AF_INET_MAPPED)) {
        tuple[0] = peer->address[1] >> 32 | (u64)ctx->sk->src_ip4 << 32;
        tuple[1] = ports;
        found = bpf_sk_lookup_tcp(ctx, (struct bpf_sock_tuple *)tuple, sizeof(((struct bpf_sock_tuple *)0)->ipv4),
                                  BPF_F_CURRENT_NETNS, 0);
        /* LLVM for arm64 would otherwise merge the two calls, and store `ports` at a variable offset on the stack,
         * which the verifier refuses. */
        barrier_var(found);
        return found;
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

/* Finds the frontend that getpeername shows. -ENOENT: the socket was not redirected. */
static __always_inline int find_peer(struct bpf_sock_addr *ctx, const struct frontend_key *peer,
                                     struct endpoint *frontend) {
    return unlikely(is_mptcp(ctx)) ? find_frontend_of_subflow(ctx, peer, frontend) : find_frontend(ctx, peer, frontend);
}
