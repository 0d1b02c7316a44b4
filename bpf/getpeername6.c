
int getpeername6(struct bpf_sock_addr *ctx) {
    struct frontend_key peer;
    struct endpoint frontend;

    get_call6(ctx, &peer);
    if (!find_peer(ctx, &peer, &frontend))
        set_endpoint6(ctx, &frontend);
    return SYS_PROCEED;
}
