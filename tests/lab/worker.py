"""A process in a Pod. It reads orders as JSON lines from standard input, and writes an answer to each as a JSON line.

python -m tests.lab.worker NAME [CGROUP]
"""

from __future__ import annotations

import errno
import json
import os
import resource
import select
import selectors
import socket
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

SLOWNESS = float(os.environ.get("LAB_SLOWNESS", "1"))
"""By how many times this machine may be slower than an ordinary one, for example when it is emulated. All time-outs of
the laboratory are multiplied by it."""
TIMEOUT = 5.0 * SLOWNESS
SO_NETNS_COOKIE = 71
CLOCK_MONOTONIC_COARSE = 6
"""From linux/time.h: the clock that bpf_ktime_get_coarse_ns reads."""
IPPROTO_MPTCP = 262
Target = tuple[str, int]


class Worker:
    def __init__(self, name: str) -> None:
        self._name = name.encode()
        self._kept: dict[str, socket.socket] = {}
        self._answers = threading.Event()
        self._answers.set()
        self._load: threading.Event | None = None
        self._threads: list[threading.Thread] = []
        self._tally: Counter[str] = Counter()
        self._held: list[socket.socket] = []
        self._dns = "right"
        self._http = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        self._requests: list[str] = []

    def serve(self, address: str, port: int, protocol: str) -> dict[str, Any]:
        """Answers everything with this worker's name."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        kind = socket.SOCK_STREAM if protocol == "TCP" else socket.SOCK_DGRAM
        server = socket.socket(family, kind)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, port))
        if protocol == "TCP":
            server.listen(512)
        target = self._serve_tcp if protocol == "TCP" else self._serve_udp
        threading.Thread(target=target, args=(server,), daemon=True).start()
        return {}

    def _serve_tcp(self, server: socket.socket) -> None:
        while True:
            connection, _ = server.accept()
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection:
            while connection.recv(64):
                connection.sendall(self._name)

    def _serve_udp(self, server: socket.socket) -> None:
        while True:
            _, client = server.recvfrom(512)
            self._answers.wait()
            server.sendto(self._name, client)

    def serve_dns(self, addresses: list[str], port: int) -> dict[str, Any]:
        """Answers DNS queries as `answer_dns` sets it, correctly at first, and short datagrams with this worker's
        name."""
        selector = selectors.DefaultSelector()
        for address in addresses:
            server = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
            server.bind((address, port))
            selector.register(server, selectors.EVENT_READ, server)
        threading.Thread(target=self._serve_dns, args=(selector,), daemon=True).start()
        return {}

    def _serve_dns(self, selector: selectors.BaseSelector) -> None:
        while True:
            for ready, _ in selector.select():
                query, client = ready.data.recvfrom(512)
                for answer in dns_answers(query, self._dns) if len(query) > 12 else [self._name]:
                    ready.data.sendto(answer, client)

    def answer_dns(self, how: str) -> dict[str, Any]:
        """Sets how queries are answered from now on: one of the names in `dns_answers`."""
        self._dns = how
        return {}

    def serve_http(self, address: str, port: int) -> dict[str, Any]:
        """Answers each request with what `answer_http` sets, with status 200 at first."""
        server = socket.create_server((address, port))
        threading.Thread(target=self._serve_http, args=(server,), daemon=True).start()
        return {}

    def _serve_http(self, server: socket.socket) -> None:
        while True:
            connection, _ = server.accept()
            with connection:
                self._requests.append(connection.recv(4096).decode())
                connection.sendall(self._http.encode())

    def answer_http(self, text: str) -> dict[str, Any]:
        """Sets the whole answer to requests from now on."""
        self._http = text
        return {}

    def requests(self) -> dict[str, Any]:
        """The requests that `serve_http` has received."""
        return {"requests": self._requests}

    def backlog(self, address: str, port: int, connections: int) -> dict[str, Any]:
        """Listens and accepts nothing; the kernel accepts one connection more than this number."""
        self._listener = socket.create_server((address, port), backlog=connections)
        return {}

    def accept_all(self) -> dict[str, Any]:
        """Accepts and closes each connection from now on."""
        threading.Thread(target=self._accept_all, daemon=True).start()
        return {}

    def _accept_all(self) -> None:
        while True:
            self._listener.accept()[0].close()

    def hold_answers(self) -> dict[str, Any]:
        """Answers no datagrams until `give_answers` is called."""
        self._answers.clear()
        return {}

    def give_answers(self) -> dict[str, Any]:
        self._answers.set()
        return {}

    def tcp(self, address: str, port: int, *, mapped: bool = False) -> dict[str, Any]:
        """Makes one connection: who answers, and the peer that `getpeername` shows."""
        with _socket(address, socket.SOCK_STREAM, mapped=mapped) as client:
            client.connect(_target(address, port, mapped=mapped))
            peer = client.getpeername()
            client.sendall(b"?")
            return {"who": client.recv(64).decode(), "peer": [peer[0], peer[1]]}

    def udp(self, address: str, port: int, *, mapped: bool = False, connected: bool = False) -> dict[str, Any]:
        """Sends one datagram: who answers, and the source address of the reply."""
        with _socket(address, socket.SOCK_DGRAM, mapped=mapped) as client:
            target = _target(address, port, mapped=mapped)
            if connected:
                client.connect(target)
                client.send(b"?")
            else:
                client.sendto(b"?", target)
            data, source = client.recvfrom(64)
            return {"who": data.decode(), "source": [source[0], source[1]]}

    def udp_many(self, targets: list[Target]) -> dict[str, Any]:
        """Asks all targets from one unconnected socket, as musl's resolver does, then reads all answers."""
        with _socket(targets[0][0], socket.SOCK_DGRAM) as client:
            for target in targets:
                client.sendto(b"?", tuple(target))
            answers = [client.recvfrom(64) for _ in targets]
            return {"answers": sorted([data.decode(), source[0], source[1]] for data, source in answers)}

    def keep(self, key: str, address: str, port: int) -> dict[str, Any]:
        """Opens a TCP connection that `use` names by its key, and asks on it."""
        self._kept[key] = _socket(address, socket.SOCK_STREAM)
        self._kept[key].connect((address, port))
        return self.use(key)

    def use(self, key: str) -> dict[str, Any]:
        """Asks on a connection that `keep` has opened."""
        self._kept[key].sendall(b"?")
        peer = self._kept[key].getpeername()
        return {"who": self._kept[key].recv(64).decode(), "peer": [peer[0], peer[1]]}

    def open(
        self, key: str, *, family: int = socket.AF_INET, protocol: str = "UDP", device: str = "", mptcp: bool = False
    ) -> dict[str, Any]:
        """Opens a socket for `connect`, `ask`, `send` and `receive`, which name it by its key. Closes an older one of
        the same key."""
        if key in self._kept:
            self._kept.pop(key).close()
        kind = socket.SOCK_STREAM if protocol == "TCP" else socket.SOCK_DGRAM
        made = socket.socket(family, kind, IPPROTO_MPTCP if mptcp else 0)
        made.settimeout(TIMEOUT)
        if device:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        self._kept[key] = made
        return {}

    def connect(self, key: str, address: str, port: int) -> dict[str, Any]:
        self._kept[key].connect((address, port))
        return {"peer": list(self._kept[key].getpeername()[:2])}

    def peer(self, address: str, port: int, protocol: str, *, mapped: bool = False) -> dict[str, Any]:
        """Connects a new UDP socket, and returns its peer's address as the kernel has it; call this where getpeername
        is not translated. For TCP it only begins to connect, and returns nothing."""
        with _socket(address, socket.SOCK_STREAM if protocol == "TCP" else socket.SOCK_DGRAM, mapped=mapped) as client:
            if protocol == "TCP":
                client.setblocking(False)
                client.connect_ex(_target(address, port, mapped=mapped))
                return {}
            client.connect(_target(address, port, mapped=mapped))
            return {"peer": [client.getpeername()[0].removeprefix("::ffff:"), client.getpeername()[1]]}

    def send(self, key: str, address: str = "", port: int = 0) -> dict[str, Any]:
        """Sends one datagram and awaits no answer. Without an address it goes to where the socket is connected."""
        if address:
            self._kept[key].sendto(b"?", (address, port))
        else:
            self._kept[key].send(b"?")
        return {}

    def receive(self, key: str) -> dict[str, Any]:
        data, source = self._kept[key].recvfrom(64)
        source = source or self._kept[key].getpeername()  # recvfrom on a stream returns no address
        return {"who": data.decode(), "source": list(source[:2])}

    def ask(self, key: str, address: str = "", port: int = 0) -> dict[str, Any]:
        self.send(key, address, port)
        return self.receive(key)

    def await_error(self, key: str) -> dict[str, Any]:
        """Waits until the kernel reports an error on the socket, without a call on it: the error's name."""
        poll = select.poll()
        poll.register(self._kept[key], 0)  # errors are always reported
        if not poll.poll(30_000 * SLOWNESS):
            return {"reported": ""}
        number = self._kept[key].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return {"reported": errno.errorcode[number]}

    def ask_all(self, key: str, targets: list[Target]) -> dict[str, Any]:
        """Asks each target on one socket, awaiting each answer before the next question."""
        return {"answers": [self.ask(key, *target) for target in targets]}

    def race(self, address: str, port: int, sockets: int) -> dict[str, Any]:
        """For each of several new sockets, two threads send its first datagrams at the same time: who answers."""
        start = threading.Barrier(2)
        opened = [_socket(address, socket.SOCK_DGRAM) for _ in range(sockets)]

        def run() -> None:
            for each in opened:
                start.wait()
                each.sendto(b"?", (address, port))

        threads = [threading.Thread(target=run) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        answers = [sorted(each.recvfrom(64)[0].decode() for _ in range(2)) for each in opened]
        for each in opened:
            each.close()
        return {"answers": answers}

    def burst(self, targets: list[Target], calls: int, threads: int) -> dict[str, Any]:
        """Makes `calls` UDP calls, split over threads and targets: who answers how often, and how long it takes."""
        tally: Counter[str] = Counter()
        begin = threading.Barrier(threads + 1)

        def run(start: int) -> None:
            begin.wait()
            for i in range(start, calls, threads):
                tally[self._ask(*targets[i % len(targets)])] += 1

        running = [threading.Thread(target=run, args=(i,)) for i in range(threads)]
        for thread in running:
            thread.start()
        begin.wait()
        started = time.monotonic()
        for thread in running:
            thread.join()
        return {"tally": dict(tally), "seconds": time.monotonic() - started}

    def sends(self, address: str, port: int, calls: int, until: float) -> dict[str, Any]:
        """Sends `calls` datagrams from one unconnected socket, without awaiting answers. It begins at the time `until`
        of CLOCK_MONOTONIC.

        `in_second`: for each second of the clock that the limit reads, how many calls began and ended in it. `edges`:
        how many calls ended in a later second than they began in.
        """
        in_second: Counter[int] = Counter()
        edges = 0
        with _socket(address, socket.SOCK_DGRAM) as client:
            time.sleep(max(0.0, until - time.monotonic()))
            for _ in range(calls):
                second = _coarse_second()
                client.sendto(b"?", (address, port))
                if _coarse_second() == second:
                    in_second[second] += 1
                else:
                    edges += 1
            return {"in_second": dict(in_second), "edges": edges}

    def connects(self, address: str, port: int, calls: int, *, fresh: bool) -> dict[str, Any]:
        """Connects UDP sockets `calls` times, without sending anything: the same socket each time, or a fresh one."""
        started = time.monotonic()
        client = _socket(address, socket.SOCK_DGRAM)
        for _ in range(calls):
            if fresh:
                client.close()
                client = _socket(address, socket.SOCK_DGRAM)
            client.connect((address, port))
        client.close()
        return {"seconds": time.monotonic() - started}

    def load_start(self, address: str, port: int, protocol: str, threads: int) -> dict[str, Any]:
        """Makes calls until `load_stop`, each on a new socket."""
        over = self._load = threading.Event()
        self._tally = Counter()

        def run() -> None:
            while not over.is_set():
                self._tally[self._ask(address, port, protocol)] += 1

        self._threads = [threading.Thread(target=run, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()
        return {}

    def load_stop(self) -> dict[str, Any]:
        assert self._load is not None
        self._load.set()
        for thread in self._threads:
            thread.join()
        return {"tally": dict(self._tally)}

    def load_tally(self) -> dict[str, Any]:
        return {"tally": dict(self._tally)}

    def _ask(self, address: str, port: int, protocol: str = "UDP") -> str:
        try:
            call = self.tcp if protocol == "TCP" else self.udp
            return str(call(address, port)["who"])
        except OSError as error:
            return f"error: {type(error).__name__} {error}"

    def hold_connections(self, address: str, port: int, connections: int, kilobytes: int) -> dict[str, Any]:
        """Keeps connections open, each with an HTTP request of this size that never ends: it sends another byte each
        second."""
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        line = b"A: " + b"a" * 60_000 + b"\r\n"  # as long as servers commonly accept
        request = b"GET / HTTP/1.1\r\n" + (line * (kilobytes * 1024 // len(line) + 1))[: kilobytes * 1024]
        held = [socket.create_connection((address, port), timeout=TIMEOUT) for _ in range(connections)]
        for each in held:
            _send(each, request)
        self._held += held

        def drip() -> None:
            while True:
                for each in held:
                    _send(each, b"a")
                time.sleep(1)

        threading.Thread(target=drip, daemon=True).start()
        return {}

    def open_connections(self) -> dict[str, Any]:
        """The number of connections of `hold_connections` that the server has not closed."""
        poll = select.poll()
        for each in self._held:
            poll.register(each, select.POLLIN | select.POLLRDHUP)
        return {"number": len(self._held) - len(poll.poll(0))}

    def listen(self, address: str, port: int) -> dict[str, Any]:
        """Receives datagrams and never answers them."""
        self._mute = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._mute.bind((address, port))
        self._mute.setblocking(False)
        return {}

    def heard(self) -> dict[str, Any]:
        """The datagrams that `listen` has received since the last call."""
        heard = []
        while True:
            try:
                heard.append(self._mute.recv(512).decode(errors="replace"))
            except BlockingIOError:
                return {"heard": heard}

    def cookie(self) -> dict[str, Any]:
        with socket.socket() as probe:
            return {"cookie": int.from_bytes(probe.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8), "little")}


def dns_answers(query: bytes, how: str) -> list[bytes]:
    """The datagrams that a server sends back to a query. `how` is a key of `answers`, or a name below it."""
    reply = bytes([*query[:2], query[2] | 0x80, query[3], *query[4:]])
    answers = {
        "right": reply,
        "SERVFAIL": reply[:3] + bytes([reply[3] | 2]) + reply[4:],
        "other capitals": reply[:12] + reply[12:].swapcase(),
        "another id": bytes([reply[0] ^ 1]) + reply[1:],
        "another question": reply[:-4] + bytes([0, reply[-3] ^ 3]) + reply[-2:],
        "no reply": query,
        "half a reply": reply[:11],
        "a reply to nothing": reply[:5] + b"\0" + reply[6:],
    }
    if how == "nothing":
        return []
    if how == "strays, then a reply":
        return [answers["another id"]] * 3 + [reply]
    return [answers[how]]


def _send(client: socket.socket, sent: bytes) -> None:
    try:
        client.sendall(sent)
    except OSError:  # the server closed the connection, or no longer reads
        return


def _coarse_second() -> int:
    return int(time.clock_gettime(CLOCK_MONOTONIC_COARSE))


def _socket(address: str, kind: int, *, mapped: bool = False) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if mapped or ":" in address else socket.AF_INET, kind)
    made.settimeout(TIMEOUT)
    return made


def _target(address: str, port: int, *, mapped: bool) -> Target:
    return (f"::ffff:{address}" if mapped else address), port


def main() -> None:
    if len(sys.argv) > 2:
        Path(sys.argv[2], "cgroup.procs").write_text(str(os.getpid()))
    worker = Worker(sys.argv[1])
    for line in sys.stdin:
        order = json.loads(line)
        try:
            answer = getattr(worker, order.pop("do"))(**order)
        except OSError as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
