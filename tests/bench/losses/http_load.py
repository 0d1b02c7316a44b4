"""Sends HTTP requests at a constant rate, each on a connection of its own, and counts what failed.

    python -m tests.bench.losses.http_load NAME=ADDRESS:PORT[,quiet] ...

Each target gets RATE requests a second; a quiet one gets a few at the start, and then none until SIGUSR1. No request
waits for another. A request fails if it has no answer within TIMEOUT_SECONDS, or one other than 200. The program prints
the line "asking" when every target has answered. After SIGTERM it awaits the requests under way, and prints one line of
JSON: NAME -> {"sent", "failed", "reasons": {reason: number}, "slowest_ms"}.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections import Counter

RATE = 20
TIMEOUT_SECONDS = 10.0
FIRST = 3
"""Requests to each target at the start. After them a proxy has looked its upstream up, and keeps the socket of that
lookup."""


class Target:
    def __init__(self, words: str) -> None:
        self.name, _, place = words.partition("=")
        place, _, quiet = place.partition(",")
        self._address, _, self._port = place.rpartition(":")
        self.quiet = bool(quiet)
        self.sent = 0
        self.reasons: Counter[str] = Counter()
        self.slowest = 0.0

    async def request(self) -> bool:
        """Sends one request. Returns whether it had a good answer."""
        clock = asyncio.get_running_loop().time
        began = clock()
        self.sent += 1
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                status = await self._status()
        except TimeoutError:
            reason = "timeout"
        except OSError as error:
            reason = type(error).__name__
        else:
            reason = "" if status == "200" else f"status {status}"
        if reason:
            self.reasons[reason] += 1
        else:
            self.slowest = max(self.slowest, clock() - began)
        return not reason

    async def _status(self) -> str:
        reader, writer = await asyncio.open_connection(self._address, int(self._port))
        try:
            writer.write(b"GET / HTTP/1.1\r\nHost: losses.test\r\nConnection: close\r\n\r\n")
            words = (await reader.readline()).split()
            await reader.read()
            return words[1].decode() if len(words) > 1 else "none"
        finally:
            writer.close()


async def ask(targets: list[Target]) -> None:
    loop = asyncio.get_running_loop()
    stopped, quiet_are_asked = asyncio.Event(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    loop.add_signal_handler(signal.SIGUSR1, quiet_are_asked.set)
    for target in targets:
        for _ in range(FIRST):
            while not await target.request():  # noqa: ASYNC110  (it has only just been started)
                await asyncio.sleep(0.1)
        target.sent, target.reasons, target.slowest = 0, Counter(), 0.0
    print("asking", flush=True)
    under_way: set[asyncio.Task[bool]] = set()
    began, number = loop.time(), 0
    while not stopped.is_set():
        for target in targets:
            if not target.quiet or quiet_are_asked.is_set():
                task = asyncio.create_task(target.request())
                under_way.add(task)
                task.add_done_callback(under_way.discard)
        number += 1
        await asyncio.sleep(max(0.0, began + number / RATE - loop.time()))
    if under_way:
        await asyncio.wait(under_way)


def main() -> None:
    targets = [Target(words) for words in sys.argv[1:]]
    asyncio.run(ask(targets))
    output = {
        each.name: {
            "sent": each.sent,
            "failed": each.reasons.total(),
            "reasons": each.reasons,
            "slowest_ms": round(each.slowest * 1000, 3),
        }
        for each in targets
    }
    print(json.dumps(output))


if __name__ == "__main__":
    main()
