"""Only etcd and kube-apiserver: a real API for tests of CRDs, sources and controllers, which starts in a few seconds.

No controllers run. So Deployments create nothing, nothing is garbage-collected, the aggregated roles (view, edit,
admin) are empty, and Pods need no service account.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import secrets
import signal
import socket
import subprocess
from collections.abc import Sequence
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import Any, Self

import yaml

from tests.cluster import binaries
from tests.cluster.api import Api
from tests.cluster.processes import checked, run
from tests.cluster.sandbox import Sandbox
from tests.lab.processes import wait_until

READY_SECONDS = 60.0
STOP_SECONDS = 10.0
NODE_SECONDS = 120.0
SERVICE_RANGE = "10.96.0.0/16"
SERVICE_RANGE6 = "fd00:96::/112"
API_ADDRESSES = ("127.0.0.1", "10.96.0.1", "fd00:96::1")
"""Loopback, and the first addresses of both ranges, which the Service `kubernetes` has."""
ISSUER = "https://kubernetes.default.svc.cluster.local"
Manifest = dict[str, Any]


class ControlPlane:
    """Context manager. All of it lives in one sandbox, which is removed by `close` or when this process ends in any
    way."""

    _namespaces = False
    _addresses: tuple[str, ...] = API_ADDRESSES
    """The addresses by which API clients reach the server, and which its certificate names."""
    _host = "127.0.0.1"
    """The one of them that kubeconfigs name."""

    def __init__(self, *, apiserver_flags: Sequence[str] = ()) -> None:
        self._apiserver_flags = tuple(apiserver_flags)
        self._kubectl = binaries.kubernetes("kubectl")
        self.sandbox = Sandbox(namespaces=self._namespaces)
        self.folder = self.sandbox.folder
        self.token = secrets.token_hex(16)
        self.kubeconfig = self.folder / "kubeconfig"
        self.url = ""
        self.port = 0
        self.etcd_port = 0
        self._apiserver: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)
        self._api: Api | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException as error:
            error.add_note(self.logs())
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._api:
            self._api.close()
        self.sandbox.close()

    def _start(self) -> None:
        self.sandbox.open()
        self.port, self.etcd_port, peer_port = self._choose_ports()
        self.url = f"https://{self._host}:{self.port}"
        self._make_secrets()
        self.kubeconfig.write_text(self._kubeconfig_text(self.token))
        self._api = Api(self.port, self.token, self.folder / "tls.crt", self.sandbox.inside)
        client, peer = f"http://127.0.0.1:{self.etcd_port}", f"http://127.0.0.1:{peer_port}"
        self.sandbox.daemon(
            "etcd",
            "/usr/bin/etcd",
            f"--data-dir={self.folder}/etcd",
            "--unsafe-no-fsync",  # the data need not survive a crash of the machine
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--log-level=warn",
        )
        self.start_apiserver()

    def _choose_ports(self) -> tuple[int, int, int]:
        """Free ports for the API server, etcd and etcd's peers, in the machine's own network namespace."""
        with contextlib.ExitStack() as held:
            sockets = [held.enter_context(socket.socket()) for _ in range(3)]
            for each in sockets:
                each.bind(("127.0.0.1", 0))
            api, etcd, peer = (each.getsockname()[1] for each in sockets)
        return api, etcd, peer

    def _make_secrets(self) -> None:
        (self.folder / "tokens.csv").write_text(f'{self.token},admin,admin,"system:masters"\n')
        names = ",".join([*(f"IP:{each}" for each in self._addresses), "DNS:localhost", "DNS:kubernetes.default.svc"])
        elliptic = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-batch")
        for name, subject in (("tls", "kube-apiserver"), ("service-accounts", "service-accounts")):
            files = ("-keyout", f"{self.folder}/{name}.key", "-out", f"{self.folder}/{name}.crt")
            usage = ("-addext", "keyUsage=digitalSignature,keyCertSign", "-addext", f"subjectAltName={names}")
            run("openssl", "req", "-x509", *elliptic, "-days", "3", "-subj", f"/CN={subject}", *usage, *files)

    def start_apiserver(self) -> None:
        """Starts it (again), at the same port and with the same objects. Returns when it is ready. Raises
        AssertionError if that takes too long."""
        assert self._api
        self._api.close()
        self._apiserver = self.sandbox.daemon(
            "kube-apiserver",
            binaries.kubernetes("kube-apiserver"),
            f"--etcd-servers=http://127.0.0.1:{self.etcd_port}",
            f"--secure-port={self.port}",
            f"--tls-cert-file={self.folder}/tls.crt",
            f"--tls-private-key-file={self.folder}/tls.key",
            f"--token-auth-file={self.folder}/tokens.csv",
            "--authorization-mode=RBAC",
            f"--service-account-key-file={self.folder}/service-accounts.crt",
            f"--service-account-signing-key-file={self.folder}/service-accounts.key",
            f"--service-account-issuer={ISSUER}",
            f"--service-cluster-ip-range={SERVICE_RANGE},{SERVICE_RANGE6}",
            "--allow-privileged",
            "--profiling=false",
            *self._placement_flags(),
            *self._apiserver_flags,
        )
        wait_until(self._is_ready, lambda: f"the API server is ready\n{self.logs('kube-apiserver')}", READY_SECONDS)

    def _placement_flags(self) -> list[str]:
        return [
            "--bind-address=127.0.0.1",
            # The Service `kubernetes` may not have a loopback address as its endpoint. Nobody uses that Service here.
            "--advertise-address=192.0.2.1",
            "--endpoint-reconciler-type=none",
            # The controller that creates service accounts does not run.
            "--disable-admission-plugins=ServiceAccount",
        ]

    def _is_ready(self) -> bool:
        assert self._apiserver
        if self._apiserver.poll() is not None:
            msg = f"the API server ended with {self._apiserver.returncode}\n{self.logs('kube-apiserver')}"
            raise RuntimeError(msg)
        try:
            return (
                self.api.raw("GET", "/readyz")[0] == 200 and self.api.raw("GET", "/api/v1/namespaces/default")[0] == 200
            )
        except (OSError, HTTPException):
            return False

    def stop_apiserver(self) -> None:
        """Kills it with SIGKILL. Returns when it has ended."""
        assert self._apiserver
        self._apiserver.kill()
        self._apiserver.wait(STOP_SECONDS)

    def pause_apiserver(self) -> None:
        """Stops the process: connections stay open, the kernel accepts new ones, and nobody answers."""
        assert self._apiserver
        self._apiserver.send_signal(signal.SIGSTOP)

    def resume_apiserver(self) -> None:
        assert self._apiserver
        self._apiserver.send_signal(signal.SIGCONT)

    @property
    def api(self) -> Api:
        """The API, with the rights of an admin."""
        assert self._api
        return self._api

    def make_kubeconfig(self, token: str) -> Path:
        """A kubeconfig for another identity, whose token `kubectl("create", "token", ...)` gives."""
        path = self.folder / f"kubeconfig-{next(self._numbers)}"
        path.write_text(self._kubeconfig_text(token))
        return path

    def _kubeconfig_text(self, token: str) -> str:
        certificate = base64.b64encode((self.folder / "tls.crt").read_bytes()).decode()
        return yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [
                    {"name": "test", "cluster": {"server": self.url, "certificate-authority-data": certificate}}
                ],
                "users": [{"name": "test", "user": {"token": token}}],
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
                "current-context": "test",
            }
        )

    def api_has(self, path: str) -> bool:
        return self.api.raw("GET", path)[0] == HTTPStatus.OK

    def kubectl(
        self,
        *args: str,
        input: str | None = None,  # noqa: A002  (subprocess.run's name)
        check: bool = True,
        kubeconfig: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Raises CalledProcessError with kubectl's output as a note, unless `check` is false."""
        done = subprocess.run(
            self.kubectl_command(*args, kubeconfig=kubeconfig), input=input, capture_output=True, text=True, check=False
        )
        return checked(done) if check else done

    def kubectl_command(self, *args: str, kubeconfig: Path | None = None) -> list[str]:
        """The command line, for callers that start the process themselves, such as a watch or a long exec."""
        enter = self.sandbox.enter(mounts=False)
        # Otherwise its cache of the API's groups would stay in the home directory, for a server that no longer exists.
        cache = f"--cache-dir={self.folder}/kubectl"
        return [*enter, str(self._kubectl), f"--kubeconfig={kubeconfig or self.kubeconfig}", cache, *args]

    def apply(self, manifests: str | Manifest | Sequence[Manifest], *, server_side: bool = False) -> None:
        """Applies manifests, given as the text of a file, as an object, or as several objects."""
        if isinstance(manifests, dict):
            manifests = [manifests]
        # As a List: kubectl 1.31 takes several documents in JSON for one.
        whole = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        text = manifests if isinstance(manifests, str) else json.dumps(whole)
        self.kubectl("apply", *(["--server-side"] if server_side else []), "-f", "-", input=text)

    def wait(self, condition: str, seconds: float, *what: str) -> None:
        """`kubectl wait`: wait("condition=Ready", 30, "pod/a", "-n", "b"). Raises CalledProcessError."""
        self.kubectl("wait", f"--for={condition}", f"--timeout={seconds:g}s", *what)

    def logs(self, *names: str, lines: int = 15) -> str:
        """See Sandbox.logs."""
        return self.sandbox.logs(*names, lines=lines)


class WholeControlPlane(ControlPlane):
    """With controller-manager and scheduler, so that Pods run if there are nodes."""

    _namespaces = True
    _grace = "24h"
    """How long a node may be silent before it counts as NotReady. Hollow nodes (tests.cluster.hollow) have no kubelet
    that renews their Lease."""

    def __init__(self, *, apiserver_flags: Sequence[str] = ()) -> None:
        super().__init__(apiserver_flags=apiserver_flags)
        self._controllers: list[subprocess.Popen[bytes]] = []

    def _choose_ports(self) -> tuple[int, int, int]:
        return 6443, 2379, 2380  # the network namespace is its own

    def _start_controllers(self) -> None:
        common = (f"--kubeconfig={self.kubeconfig}", "--leader-elect=false", "--profiling=false")
        manager = self.sandbox.daemon(
            "kube-controller-manager",
            binaries.kubernetes("kube-controller-manager"),
            *common,
            f"--service-account-private-key-file={self.folder}/service-accounts.key",
            f"--root-ca-file={self.folder}/tls.crt",
            f"--node-monitor-grace-period={self._grace}",
        )
        scheduler = self.sandbox.daemon("kube-scheduler", binaries.kubernetes("kube-scheduler"), *common)
        self._controllers = [manager, scheduler]

    def restart_controllers(self) -> None:
        """Restarts them after an outage of the API server: they would wait for up to a minute before their next
        attempt."""
        for each in self._controllers:
            each.kill()
            each.wait()
        self._start_controllers()

    def wait_usable(self, *nodes: str, seconds: float = NODE_SECONDS) -> None:
        """Returns when these nodes are Ready and Pods can be created."""
        for name in nodes:
            wait_until(
                lambda name=name: self.api_has(f"/api/v1/nodes/{name}"),  # type: ignore[misc]
                f"node {name} is known",
                seconds,
            )
        self.wait("condition=Ready", seconds, *(f"node/{name}" for name in nodes))
        # Pods can't be created before the controller has created this.
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        wait_until(lambda: self.api_has(account), "the service account `default` is there", seconds)
