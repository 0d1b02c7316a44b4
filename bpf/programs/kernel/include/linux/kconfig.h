/* Our stand-in for a kernel source tree: BCC wants one, the hooks need none. */
#pragma once
#define CONFIG_BPF_SYSCALL 1
