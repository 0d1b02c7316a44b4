"""The agent, with a way to make any of its actors fail: each line on standard input names one.

python -m tests.lab.failing_agent --config FILE
"""

from __future__ import annotations

import sys
import threading

import pykka

import run


class UnhandledMessage:
    """No actor has a handler for it, so an actor that gets one fails, as it would by a mistake of ours."""


def fail_named_actors() -> None:
    for line in sys.stdin:
        for ref in pykka.ActorRegistry.get_by_class_name(line.strip()):
            ref.tell(UnhandledMessage())


if __name__ == "__main__":
    threading.Thread(target=fail_named_actors, daemon=True).start()
    sys.exit(run.main(sys.argv[1:]))
