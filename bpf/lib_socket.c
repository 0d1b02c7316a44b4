/* What a socket was redirected to, and the way back (P15). */

/* Notes that `call` goes to `backend`. -ENOMEM: it could not be noted. */
static __always_inline int remember_pair(struct bpf_sock_addr *ctx, const struct frontend_key *call,
                                         const struct endpoint *backend) {
    struct socket_pairs *state;
    struct socket_pair *pair;
    u32 i;

    if (!ctx->sk)
        return -ENOMEM;
    state = socket_state.sk_storage_get(ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
    if (!state)
        return -ENOMEM;
#pragma unroll
    for (i = 0; i < SOCKET_PAIRS; i++) {
        pair = &state->pair[i];
        barrier_var(pair);
        if (!pair->backend_port)
            break;
        if (pair->backend_port == backend->port && pair->frontend_port == (__be16)call->port_protocol &&
            same_address(pair->backend, backend->address) && same_address(pair->frontend, call->address))
            return 0;
    }
    pair = &state->pair[__sync_fetch_and_add(&state->next, 1) & (SOCKET_PAIRS - 1)];
    /* Another thread may receive on this socket meanwhile: the pair counts again when its last field is written. */
    *(volatile __be16 *)&pair->backend_port = 0;
    barrier();
    __builtin_memcpy(pair->frontend, call->address, sizeof(pair->frontend));
    __builtin_memcpy(pair->backend, backend->address, sizeof(pair->backend));
    pair->frontend_port = call->port_protocol;
    barrier();
    *(volatile __be16 *)&pair->backend_port = backend->port;
    return 0;
}

/* Finds the frontend behind which the socket saw `peer`. -ENOENT: the socket was not redirected there. */
static __always_inline int find_frontend(struct bpf_sock_addr *ctx, const struct frontend_key *peer,
                                         struct endpoint *frontend) {
    struct socket_pairs *state;

    if (!ctx->sk)
        return -ENOENT;
    state = socket_state.sk_storage_get(ctx->sk, 0, 0);
    if (!state)
        return -ENOENT;
#pragma unroll
    for (u32 i = 0; i < SOCKET_PAIRS; i++) {
        struct socket_pair *pair = &state->pair[i];

        barrier_var(pair);
        if (pair->backend_port && pair->backend_port == (__be16)peer->port_protocol &&
            same_address(pair->backend, peer->address)) {
            __builtin_memcpy(frontend->address, pair->frontend, sizeof(frontend->address));
            frontend->port = pair->frontend_port;
            return 0;
        }
    }
    return -ENOENT;
}
