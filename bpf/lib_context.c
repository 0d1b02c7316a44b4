/* The context's quirks, so that the rest sees one kind of address: four words in network order, IPv4 as mapped IPv6. */

static __always_inline void get_call4(struct bpf_sock_addr *ctx, struct frontend_key *call) {
    call->address[2] = bpf_htonl(AF_INET_MAPPED);
    call->address[3] = ctx->user_ip4;
    call->port = ctx->user_port;
    call->protocol = ctx->protocol;
}

static __always_inline void get_call6(struct bpf_sock_addr *ctx, struct frontend_key *call) {
    call->address[0] = ctx->user_ip6[0];
    call->address[1] = ctx->user_ip6[1];
    call->address[2] = ctx->user_ip6[2];
    call->address[3] = ctx->user_ip6[3];
    call->port = ctx->user_port;
    call->protocol = ctx->protocol;
}

static __always_inline void set_endpoint4(struct bpf_sock_addr *ctx, const struct endpoint *to) {
    ctx->user_ip4 = to->address[3];
    ctx->user_port = to->port;
}

static __always_inline void set_endpoint6(struct bpf_sock_addr *ctx, const struct endpoint *to) {
    ctx->user_ip6[0] = to->address[0];
    ctx->user_ip6[1] = to->address[1];
    ctx->user_ip6[2] = to->address[2];
    ctx->user_ip6[3] = to->address[3];
    ctx->user_port = to->port;
}

static __always_inline bool same_address(const __be32 *a, const __be32 *b) {
    return a[3] == b[3] && a[2] == b[2] && a[1] == b[1] && a[0] == b[0];
}
