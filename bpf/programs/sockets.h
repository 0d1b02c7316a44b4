/* What a socket remembers of its redirects. These rows are in socket storages. All builds that have the same text of
 * this file share them, so that a socket keeps its backend and its way back through any number of upgrades (P15,
 * P16). */
#pragma once

#define PAIR_STALE 1 /* the socket has another backend for this frontend by now; replies of this one may still arrive */
#define PAIR_DIRECT 2 /* the calling program has since called the backend by its own address */

/* `generation` is that of the frontend row by which the backend was last known to be in use; 0 in an empty pair.
 * Writers hold the lock of the socket. Readers hold none, and compare the generation before and after. */
struct socket_pair {
    u64 generation;
    __be64 frontend[2];
    __be64 backend[2];
    __be16 frontend_port;
    __be16 backend_port;
    u32 flags;
};
_Static_assert(sizeof(struct socket_pair) == 48, "socket_pair");

/* Every socket that was redirected has one. It holds the only pair of nearly all sockets, and is kept small because the
 * kernel allocates it at the first redirect. */
struct socket_state {
    struct bpf_spin_lock lock;
    u32 has_more;
    struct socket_pair pair;
};
_Static_assert(sizeof(struct socket_state) == 56, "socket_state");

/* Further pairs. musl asks up to three name servers at once on one socket; a proxy may call more frontends than
 * that. */
#define MORE_PAIRS 16 /* a power of two: from the mask, the verifier knows the range of an index */
struct socket_more {
    struct socket_pair pair[MORE_PAIRS];
};
_Static_assert(sizeof(struct socket_more) == 48 * MORE_PAIRS, "socket_more");
