"""The agent, in which any one actor can be made to fail: a line on standard input names the actor.

python -m tests.lab.mortal_agent --config FILE
"""

from __future__ import annotations

import sys
import threading

import pykka

import run


class Bullet:
    """A message that no actor knows: it fails as by a mistake of ours."""


def obey() -> None:
    for line in sys.stdin:
        for ref in pykka.ActorRegistry.get_by_class_name(line.strip()):
            ref.tell(Bullet())


if __name__ == "__main__":
    threading.Thread(target=obey, daemon=True).start()
    sys.exit(run.main(sys.argv[1:]))
