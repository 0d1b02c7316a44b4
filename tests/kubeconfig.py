"""A kubeconfig with one context, for a server that a test runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path


def write_kubeconfig(path: Path, server: str, *, user: Mapping[str, str] | None = None, namespace: str = "") -> Path:
    """Writes it for the URL `server`, and returns the path. By default the user has a token. Without a namespace the
    context has none."""
    context = {"cluster": "c", "user": "u", **({"namespace": namespace} if namespace else {})}
    config = {
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": "t"} if user is None else dict(user)}],
        "contexts": [{"name": "x", "context": context}],
        "current-context": "x",
    }
    path.write_text(json.dumps(config))
    return path
