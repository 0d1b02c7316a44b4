/* The entry points. Both address families do the same; they differ only in which fields of the context hold the
 * address. No program ever refuses a call. */

static __always_inline int redirect_call(struct bpf_sock_addr *ctx, bool ipv6) {
    struct frontend_key call;

    if (!port_in_use(ctx->user_port))
        return SYS_PROCEED;
    get_call(ctx, &call, ipv6);
    decide(ctx, &call, ipv6);
    return SYS_PROCEED;
}

static __always_inline int show_sender(struct bpf_sock_addr *ctx, bool ipv6) {
    struct frontend_key sender;
    struct endpoint frontend;

    get_call(ctx, &sender, ipv6);
    if (!find_frontend(ctx, &sender, &frontend))
        set_endpoint(ctx, &frontend, ipv6);
    return SYS_PROCEED;
}

static __always_inline int show_peer(struct bpf_sock_addr *ctx, bool ipv6) {
    struct frontend_key peer;
    struct endpoint frontend;

    get_call(ctx, &peer, ipv6);
    if (!find_peer(ctx, &peer, &frontend))
        set_endpoint(ctx, &frontend, ipv6);
    return SYS_PROCEED;
}

/* For connect4 and sendmsg4. */
int call4(struct bpf_sock_addr *ctx) {
    return redirect_call(ctx, false);
}

/* For connect6 and sendmsg6. */
int call6(struct bpf_sock_addr *ctx) {
    return redirect_call(ctx, true);
}

int recvmsg4(struct bpf_sock_addr *ctx) {
    return show_sender(ctx, false);
}

int recvmsg6(struct bpf_sock_addr *ctx) {
    return show_sender(ctx, true);
}

int getpeername4(struct bpf_sock_addr *ctx) {
    return show_peer(ctx, false);
}

int getpeername6(struct bpf_sock_addr *ctx) {
    return show_peer(ctx, true);
}
