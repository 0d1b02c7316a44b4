"""Real proxies that keep a connected UDP socket to their resolver: they fail no request once their DNS server is out of
use, since the closer closes that socket (P18 to P20).

Each request asks for a name that was not asked for before, so that the proxy needs an answer for it.
"""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.lab import manifests
from tests.lab.agent import Agent
from tests.lab.closer import Closer
from tests.lab.lab import VIP, Lab, PodProcess
from tests.lab.neighbours import dnsmasq
from tests.lab.processes import run, wait_until
from tests.lab.worker import SLOWNESS

DNS_PORT, PROXY_PORT, WEB_PORT = 5353, 8080, 8081
NGINX = f"""
daemon off;
pid {{folder}}/nginx.pid;
error_log stderr;
events {{{{ worker_connections 256; }}}}
http {{{{
    access_log off;
    client_body_temp_path {{folder}}/body;
    proxy_temp_path {{folder}}/proxy;
    fastcgi_temp_path {{folder}}/fastcgi;
    uwsgi_temp_path {{folder}}/uwsgi;
    scgi_temp_path {{folder}}/scgi;
    resolver {VIP} ipv6=off;
    server {{{{
        listen 127.0.0.1:{PROXY_PORT};
        location / {{{{ proxy_pass http://$arg_name:{WEB_PORT}; }}}}
    }}}}
    server {{{{
        listen 127.0.0.1:{WEB_PORT};
        location / {{{{ return 200; }}}}
    }}}}
}}}}
"""
HAPROXY = f"""
resolvers cluster
    nameserver cluster {VIP}:53
    resolve_retries 3
    timeout resolve 1s
    timeout retry 1s
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend proxy
    bind 127.0.0.1:{PROXY_PORT}
    http-request do-resolve(txn.found,cluster,ipv4) url_param(name)
    http-request return status 503 unless {{{{ var(txn.found) -m found }}}}
    http-request set-dst var(txn.found)
    default_backend web
backend web
    server web 0.0.0.0:{WEB_PORT}
frontend web
    bind 127.0.0.1:{WEB_PORT}
    http-request return status 200
"""
COMMANDS = {
    "nginx": (NGINX, ("nginx", "-c")),
    "haproxy": (HAPROXY, ("haproxy", "-db", "-f")),
}
ASK = f"""
import http.client, sys
for name in sys.argv[1:]:
    connection = http.client.HTTPConnection("127.0.0.1", {PROXY_PORT}, timeout=90)
    connection.request("GET", "/?name=" + name)
    print(connection.getresponse().status)
"""
_numbers = itertools.count()
Ask = Callable[[int], list[int]]


def dns_server(pod: PodProcess) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """Every name is at 127.0.0.1, where the web server is."""
    return dnsmasq(pod, port=DNS_PORT, name="#", address="127.0.0.1")


@pytest.fixture
def ask(client: PodProcess, proxy: str, tmp_path: Path) -> Iterator[Ask]:
    """Runs the proxy in the client's Pod. Returns a function that makes requests, and returns their status codes."""
    text, command = COMMANDS[proxy]
    path = tmp_path / f"{proxy}.conf"
    path.write_text(text.format(folder=tmp_path))
    enter = ("sh", "-c", 'echo $$ > "$0/cgroup.procs"; exec "$@"', str(client.cgroup))
    inside = ("nsenter", f"--net=/run/netns/{client.netns}")
    process = subprocess.Popen([*enter, *inside, *command, str(path)])

    def requests(number: int) -> list[int]:
        names = [f"n{next(_numbers)}.test" for _ in range(number)]
        done = subprocess.run([*inside, sys.executable, "-c", ASK, *names], capture_output=True, text=True, check=False)
        return [int(line) for line in done.stdout.split()] or [0]

    try:
        yield requests
    finally:
        process.terminate()
        process.wait(10 * SLOWNESS)


@pytest.mark.parametrize("proxy", COMMANDS)
@pytest.mark.parametrize("loss", ["replaced", "hangs"])
def test_a_proxy_fails_no_request_after_its_dns_server_is_out_of_use(
    lab: Lab, agent: Agent, pods: list[PodProcess], closer: Closer, ask: Ask, loss: str
) -> None:
    old, new = lab.pod(f"dns{next(_numbers)}"), pods[0]
    policy = manifests.policy("dns", ports=((53, "UDP"),), backend_port=DNS_PORT)
    policy["spec"]["backend"]["healthCheck"] = {"dns": {}, "interval": "100ms", "timeout": "100ms"}
    with dns_server(old) as leaving, dns_server(new):
        lab.write("pods", manifests.pod(old))
        lab.write("policies", policy)
        wait_until(lambda: agent.states() == {"dns": "Active"}, "active")
        wait_until(lambda: ask(1) == [200], "the proxy is up")
        assert ask(3) == [200] * 3
        if loss == "replaced":
            leaving.kill()
            old.kill()
            run("ip", "netns", "del", old.netns)  # so nothing answers at its address, not even with an error
            lab.write("pods", manifests.pod(new))
        else:
            leaving.send_signal(signal.SIGSTOP)
            lab.write("pods", manifests.pod(old), manifests.pod(new))
        closer.await_line("closed 1 socket to")
        assert ask(20) == [200] * 20
