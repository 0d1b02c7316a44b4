#pragma once
#define __always_inline inline __attribute__((always_inline))
#define barrier() asm volatile("" : : : "memory")
#define offsetof(type, member) __builtin_offsetof(type, member)
