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
/* For a moment the former backends stand beside the new ones. */
#define MAX_MEMBERS (2 * MAX_BACKENDS)
/* A policy and Pod each. */
#define MAX_BACKEND_CGROUPS AT_LEAST_16384(MAX_BACKENDS)
/* Deepest nesting of Pod cgroups that we look for below the level that the row names. */
#define MAX_CGROUP_LEVELS 8
/* A row that is replaced while we read it is read again. The agent needs longer for another write than a call for a try,
 * so a second try fails only when the caller was taken off its CPU in the midst of both; the call then passes. */
#define MAX_READS 2
/* 2^64 / golden ratio: its product with a key has bits of the whole key at the top. */
#define FILTER_FACTOR 0x9e3779b97f4a7c15ULL

#define NANOSECONDS 1000000000ULL
#define SYS_PROCEED 1
#define AF_INET 2
#define AF_INET6 10
#define IPPROTO_MPTCP 262
#define AF_INET_MAPPED 0x0000ffff /* third word of ::ffff:a.b.c.d, host order */

/* Of the kernel's errno-base.h, which BCC's include path does not reach. */
#define ENOENT 2
#define EAGAIN 11
#define ENOMEM 12
#define EEXIST 17
