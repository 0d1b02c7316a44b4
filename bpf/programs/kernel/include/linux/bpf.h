#pragma once
#include <bcc/bpf.h>
