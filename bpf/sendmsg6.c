
int sendmsg6(struct bpf_sock_addr *ctx) {
    struct frontend_key call;
    struct endpoint backend;

    if (!port_in_use(ctx->user_port))
        return SYS_PROCEED;
    get_call6(ctx, &call);
    if (!choose_backend(ctx, &call, &backend))
        set_endpoint6(ctx, &backend);
    return SYS_PROCEED;
}
