"""The name and the namespace with which this process of the controller takes part in the election."""

from __future__ import annotations

import os
import socket
import uuid
from pathlib import Path

from kubernetes.config import ConfigException, list_kube_config_contexts

_FALLBACK_NAMESPACE = "elf"
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def own_namespace(kubeconfig: str) -> str:
    """POD_NAMESPACE, else the service account's namespace, else that of the kubeconfig's context, else `elf`."""
    named = os.environ.get("POD_NAMESPACE", "")
    if named:
        return named
    try:
        return _NAMESPACE_FILE.read_text(encoding="utf-8").strip() or _FALLBACK_NAMESPACE
    except OSError:
        pass
    try:
        _, active = list_kube_config_contexts(config_file=kubeconfig or None)  # type: ignore[no-untyped-call]
        return str(active["context"].get("namespace") or _FALLBACK_NAMESPACE)
    except (ConfigException, OSError, KeyError, TypeError, AttributeError):
        return _FALLBACK_NAMESPACE


def new_identity() -> str:
    """Unique for each process: the host name (a Pod's name) and a random part."""
    return f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}"
