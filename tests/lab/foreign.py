"""Stands for a CNI's socket load balancer: a program on a cgroup that translates one virtual IP away, attached first.

python -m tests.lab.foreign CGROUP FROM TO      (IPv4; prints "attached"; ends, and detaches, when its input ends)
"""

from __future__ import annotations

import os
import socket
import sys

from bpf import libbpf
from bpf.build import HOOKS, KERNEL_TREE

_TEXT = """
#include <uapi/linux/bpf.h>
int translate(struct bpf_sock_addr *ctx) {
    if (ctx->user_ip4 == FROM)
        ctx->user_ip4 = TO;
    return 1;
}
"""


def main(cgroup: str, address: str, translated: str) -> None:
    os.environ["BCC_KERNEL_SOURCE"] = str(KERNEL_TREE)
    from bcc import BPF  # noqa: PLC0415

    flags = [
        f"-D{name}={int.from_bytes(socket.inet_aton(ip), 'little')}u"
        for name, ip in (("FROM", address), ("TO", translated))
    ]
    program = BPF(text=_TEXT, cflags=flags)
    directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
    links = []
    for hook in ("connect4", "sendmsg4"):
        function = program.load_func(b"translate", BPF.CGROUP_SOCK_ADDR, attach_type=HOOKS[hook])
        links.append(libbpf.link_create(function.fd, directory, HOOKS[hook], 0))
        program.funcs.clear()  # the same function is loaded again, for another attach type
    print("attached", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
