#pragma once
#define __always_inline inline __attribute__((always_inline))
#define barrier() asm volatile("" : : : "memory")
/* Hides from the compiler where a value comes from, so that it does not merge the code of two paths. Without
 * CAP_PERFMON the verifier refuses an addition to a pointer that two paths reach with different constants. */
#define barrier_var(value) asm volatile("" : "+r"(value))
#define offsetof(type, member) __builtin_offsetof(type, member)
#define likely(condition) __builtin_expect(!!(condition), 1)
#define unlikely(condition) __builtin_expect(!!(condition), 0)
