/* What a socket was redirected to. These rows live in socket storages that every build with the same text of this file
 * shares, so that a socket keeps its backend and its way back through any number of upgrades (P15, P16). */
#pragma once

#define PAIR_STALE 1 /* the frontend has another backend by now; replies may still be on their way */
#define PAIR_DIRECT 2 /* the program has since turned to the backend's own address */

/* A pair counts while its generation is not 0: the generation of the frontend row by which the backend was last known
 * to be in use. Writers hold the lock of the socket; readers compare the generation before and after. */
struct socket_pair {
    u64 generation;
    __be64 frontend[2];
    __be64 backend[2];
    __be16 frontend_port;
    __be16 backend_port;
    u32 flags;
};
_Static_assert(sizeof(struct socket_pair) == 48, "socket_pair");

/* Of every socket that was redirected. Nearly all sockets have one pair, and its size counts: the kernel allocates it
 * at the first redirect. */
struct socket_state {
    struct bpf_spin_lock lock;
    u32 has_more;
    struct socket_pair pair;
};
_Static_assert(sizeof(struct socket_state) == 56, "socket_state");

/* Further pairs. musl asks three name servers at once; a proxy with one socket may ask more frontends. */
#define MORE_PAIRS 16 /* a power of two: the verifier follows the mask */
struct socket_more {
    struct socket_pair pair[MORE_PAIRS];
};
_Static_assert(sizeof(struct socket_more) == 48 * MORE_PAIRS, "socket_more");
