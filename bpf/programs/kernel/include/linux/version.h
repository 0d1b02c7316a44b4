#pragma once
#define LINUX_VERSION_CODE 331520 /* 5.15, the floor */
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))
