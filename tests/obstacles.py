"""How a stage of `make test` fails when this machine lacks something that its tests need."""

from __future__ import annotations

import sys


def exit_if_any(reasons: list[str], tests: str) -> None:
    """Prints each reason, and exits with 1 if there is one. `tests` are those that cannot run, such as "cluster
    tests"."""
    for reason in reasons:
        print(f"{tests} cannot run: {reason}", file=sys.stderr)
    if reasons:
        sys.exit(1)
