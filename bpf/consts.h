/* Limits and fixed numbers. Sizes come from the configuration by -D. */
#pragma once

#ifndef MAX_FRONTENDS
#define MAX_FRONTENDS 65536
#endif
#ifndef MAX_BACKENDS
#define MAX_BACKENDS 65536
#endif
#ifndef MAX_AFFINITY
#define MAX_AFFINITY 65536
#endif

/* These maps take memory only for the rows that they have, so a small configuration gets no small ones: a policy without
 * a backend at the moment has no frontend, but a row for its counters, and a Pod that is not ready has one too. */
#define AT_LEAST_16384(size) ((size) > 16384 ? (size) : 16384)
#define MAX_POLICIES AT_LEAST_16384(MAX_FRONTENDS)
/* A policy and Pod each. */
#define MAX_BACKEND_CGROUPS AT_LEAST_16384(MAX_BACKENDS)
/* Frontends that one unconnected socket may talk to before replies from the oldest show their backend. musl asks three
 * name servers at once, each perhaps over several backends. */
#define SOCKET_PAIRS 8 /* a power of two: the verifier follows the mask */
/* Deepest nesting of Pod cgroups that we look for below the level that the row names. */
#define MAX_CGROUP_LEVELS 8
/* A row that is replaced while we read it is read again; it can't be replaced that often in some hundred nanoseconds. */
#define MAX_READS 4
/* log2 of the most backends that one frontend can have, rounded up. */
#define MAX_SEARCH_STEPS 25

/* 2^64 / golden ratio: its product with a key has bits of the whole key at the top. */
#define FILTER_FACTOR 0x9e3779b97f4a7c15ULL

#define NANOSECONDS 1000000000ULL
#define SYS_PROCEED 1
#define AF_INET_MAPPED 0x0000ffff /* third word of ::ffff:a.b.c.d, host order */

/* Of the kernel's errno-base.h, which BCC's include path does not reach. */
#define ENOENT 2
#define EAGAIN 11
#define ENOMEM 12
#define EEXIST 17
