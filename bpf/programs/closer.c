/* The program that answers the closer: was the socket with these addresses redirected, and from which frontend?
 *
 * sock_diag lists sockets and closes them, and shows a TCP socket's storages, but not a UDP socket's. So the closer
 * runs this program by BPF_PROG_TEST_RUN, inside the network namespace of the socket. It is a packet program, since
 * these may look up a socket by its addresses; it is attached nowhere and sees no packet. */

#define QUERY_AT 14 /* behind the Ethernet header that a test run must have */

/* Writes the key of the look-up, struct bpf_sock_tuple, as whole words (types.h): the peer's address, ours, both ports.
 * Returns its size. */
static __always_inline u32 make_tuple(const struct redirect_query *query, u64 tuple[5]) {
    const struct frontend_key *peer = &query->peer;
    u64 ports = (__be16)peer->port_protocol | (u64)(__be16)query->local.port << 16;

    if (!peer->address[0] && (u32)peer->address[1] == bpf_htonl(AF_INET_MAPPED)) {
        tuple[0] = peer->address[1] >> 32 | query->local.address[1] >> 32 << 32;
        tuple[1] = ports;
        barrier(); /* otherwise LLVM would store the ports of both families by one instruction, at an index */
        return sizeof(((struct bpf_sock_tuple *)0)->ipv4);
    }
    tuple[0] = peer->address[0];
    tuple[1] = peer->address[1];
    tuple[2] = query->local.address[0];
    tuple[3] = query->local.address[1];
    tuple[4] = ports;
    return sizeof(((struct bpf_sock_tuple *)0)->ipv6);
}

static __always_inline int find_redirect_of(struct bpf_sock *sk, struct redirect_query *query) {
    struct socket_state *state = bpf_sk_storage_get(SHARED(SOCKET_STATE), sk, 0, 0);
    struct socket_more *more;

    if (!state)
        return -ENOENT;
    if (!read_frontend(&state->pair, &query->peer, &query->frontend))
        return 0;
    if (!state->has_more)
        return -ENOENT;
    more = bpf_sk_storage_get(SHARED(SOCKET_MORE), sk, 0, 0);
    return more ? read_frontend_among(more, &query->peer, &query->frontend) : -ENOENT;
}

/* 1: the answer is in the query. 0: there is no such socket, or it was not redirected to its peer. */
int find_redirect(struct __sk_buff *skb) {
    struct redirect_query query;
    struct bpf_sock *sk;
    u64 tuple[5];
    u32 size;
    int error;

    if (bpf_skb_load_bytes(skb, QUERY_AT, &query, sizeof(query)))
        return 0;
    size = make_tuple(&query, tuple);
    if ((u8)(query.peer.port_protocol >> 16) == IPPROTO_TCP)
        sk = bpf_sk_lookup_tcp(skb, (struct bpf_sock_tuple *)tuple, size, BPF_F_CURRENT_NETNS, 0);
    else
        sk = bpf_sk_lookup_udp(skb, (struct bpf_sock_tuple *)tuple, size, BPF_F_CURRENT_NETNS, 0);
    if (!sk)
        return 0;
    error = find_redirect_of(sk, &query);
    bpf_sk_release(sk);
    if (error)
        return 0;
    return !bpf_skb_store_bytes(skb, QUERY_AT, &query, sizeof(query), 0);
}
