"""The agent's settings: one frozen dataclass for each section of the configuration file (docs/configuration.md).

All defaults are here. `config.load` fills in what the file and the environment give.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path

ANY_NAMESPACE = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSettings:
    kind: str = "kubernetes"
    """`kubernetes` or `directory`."""
    directory: Path = Path("/etc/balancing/manifests")
    kubeconfig: str = ""
    """"" stands for in-cluster, else ~/.kube/config."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatapathSettings:
    cgroup: str = "auto"
    """Path of a cgroup2 directory, or `auto`: the cgroup2 mount."""
    bpffs: Path = Path("/sys/fs/bpf/balancing")
    ipv4: bool = True
    ipv6: bool = True
    lease_seconds: int = 30
    """0 turns the lease off."""
    max_frontends: int = 65536
    max_backends: int = 65536
    max_affinity: int = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class RedirectSettings:
    qos_limit: int = 0
    """Redirects per second and policy on this node; 0 is no limit."""
    address_cidrs: tuple[IPv4Network | IPv6Network, ...] = (ip_network("0.0.0.0/0"), ip_network("::/0"))
    address_backend_namespaces: frozenset[str] = frozenset({ANY_NAMESPACE})
    close_stale_sockets: bool = True
    """False: the closer does nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsSettings:
    address: str = "0.0.0.0"
    port: int = 5811


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthSettings:
    address: str = "127.0.0.1"
    port: int = 5810


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    level: str = "info"
    """`debug`, `info`, `warning` or `error`."""
    format: str = "text"
    """`text` or `json`."""
    redirects: str = "none"
    """Decisions about calls to frontends that the agent writes to standard output: `none`, `passes` or `all`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    node_name: str = field(default_factory=lambda: socket.gethostname().lower())
    """In lower case, as Kubernetes names nodes."""
    source: SourceSettings = SourceSettings()
    datapath: DatapathSettings = DatapathSettings()
    redirect: RedirectSettings = RedirectSettings()
    metrics: MetricsSettings = MetricsSettings()
    health: HealthSettings = HealthSettings()
    log: LogSettings = LogSettings()
