#pragma once
#define __always_inline inline __attribute__((always_inline))
#define barrier() asm volatile("" : : : "memory")
/* Hides from the compiler where a value comes from. Without CAP_PERFMON the verifier refuses an addition to a pointer to
 * which two paths bring two constants; so each path must have an addition of its own, that the compiler can't merge. */
#define barrier_var(value) asm volatile("" : "+r"(value))
#define offsetof(type, member) __builtin_offsetof(type, member)
#define likely(condition) __builtin_expect(!!(condition), 1)
#define unlikely(condition) __builtin_expect(!!(condition), 0)
