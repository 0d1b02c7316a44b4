/* Reads and writes the kernel's context (struct bpf_sock_addr), so that the other files see only one kind of
 * address: two words in network order, IPv4 as mapped IPv6. */

static __always_inline u64 get_port_protocol(struct bpf_sock_addr *ctx) {
    return ctx->user_port | (u32)(u8)ctx->protocol << 16;
}

static __always_inline void get_call(struct bpf_sock_addr *ctx, struct frontend_key *call, bool ipv6) {
    if (ipv6) {
        call->address[0] = *(__be64 *)&ctx->user_ip6[0];
        call->address[1] = *(__be64 *)&ctx->user_ip6[2];
    } else {
        call->address[0] = 0;
        call->address[1] = (u64)ctx->user_ip4 << 32 | bpf_htonl(AF_INET_MAPPED);
    }
    call->port_protocol = get_port_protocol(ctx);
}

static __always_inline void set_endpoint(struct bpf_sock_addr *ctx, const struct endpoint *to, bool ipv6) {
    if (ipv6) {
        *(__be64 *)&ctx->user_ip6[0] = to->address[0];
        *(__be64 *)&ctx->user_ip6[2] = to->address[1];
    } else {
        ctx->user_ip4 = to->address[1] >> 32;
    }
    ctx->user_port = to->port;
}

static __always_inline bool same_address(const __be64 *a, const __be64 *b) {
    return !((a[0] ^ b[0]) | (a[1] ^ b[1]));
}
