"""kubectl lr, with a kubectl that answers from a table. A command that it should run in a container, it runs here.

tests/cluster/test_plugin.py has the real kubectl.
"""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import json
import stat
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "k8s" / "plugin" / "kubectl-lr"
OLDEST_PYTHON = (3, 9)

KUBECTL = """
import json, subprocess, sys
arguments = sys.argv[1:]
with open(sys.argv[0] + ".log", "a") as log:
    log.write(json.dumps(arguments) + "\\n")
table = json.load(open(sys.argv[0] + ".json"))
line = " ".join(arguments)
for words, (output, error, code) in table:
    if all(word in line for word in words.split()):
        if output == "RUN":
            command = arguments[arguments.index("--") + 1:]
            sys.exit(subprocess.run([sys.executable, *command[1:]]).returncode)
        sys.stdout.write(output)
        sys.stderr.write(error)
        sys.exit(code)
sys.exit("error: not in the table: " + line)
"""

STATUS: dict[str, Any] = {
    "node": "a",
    "version": "0.3.0",
    "build": "0123abcd",
    "source": {"kind": "kubernetes", "synced": True, "streams": [{"name": "policies", "message": ""}]},
    "datapath": {
        "hooks": [f"{name}{family}" for name in ("connect", "sendmsg", "recvmsg", "getpeername") for family in (4, 6)],
        "lease_withheld": "",
        "programs_before_us": {},
        "warnings": [],
    },
    "closer": {"state": "running", "message": ""},
    "actors": [{"name": "MapWriter", "state": "running", "restarts": 0, "mailbox": 0}],
    "policies": [
        {"name": "dns", "state": "Active", "message": ""},
        {"name": "web", "state": "NoBackend", "message": ""},
    ],
}


def load_plugin() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("kubectl_lr", str(PLUGIN))
    spec = importlib.util.spec_from_loader("kubectl_lr", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    sys.modules["kubectl_lr"] = module
    loader.exec_module(module)
    return module


plugin = load_plugin()


class Cluster:
    """A folder with a kubectl, its table and what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.kubectl = folder / "kubectl"
        self.kubectl.write_text(f"#!{sys.executable}\n{KUBECTL}")
        self.kubectl.chmod(self.kubectl.stat().st_mode | stat.S_IXUSR)
        self._table: list[tuple[str, tuple[str, str, int]]] = []

    def answers(self, words: str, output: object = "", error: str = "", code: int = 0) -> None:
        """Sets the answer to commands that have all these words. A later answer comes before an earlier one. "RUN" runs
        what follows `--` here."""
        text = output if isinstance(output, str) else json.dumps(output)
        self._table.insert(0, (words, (text, error, code)))
        self.kubectl.with_suffix(".json").write_text(json.dumps(self._table))

    def asked(self, words: str) -> list[list[str]]:
        """The arguments of each command so far that has all these words."""
        lines = self.kubectl.with_suffix(".log").read_text().splitlines()
        commands: list[list[str]] = [json.loads(line) for line in lines]
        return [each for each in commands if all(word in " ".join(each) for word in words.split())]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """Nodes a, b and c: a has an agent that runs, b one that does not, c none."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    made = Cluster(tmp_path)
    made.answers("get nodes", {"items": [{"metadata": {"name": name}} for name in "abc"]})
    made.answers("get pods -n elf", {"items": [agent_pod("a")]})
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image\nmore"}}
    made.answers("get pods -n elf component=agent", {"items": [agent_pod("a"), agent_pod("b", state=waiting)]})
    return made


def agent_pod(node: str, *, state: dict[str, Any] | None = None, health: int = 5810, metrics: int = 5811) -> Any:
    container = {
        "name": "agent",
        "livenessProbe": {"httpGet": {"host": "127.0.0.1", "port": health}},
        "ports": [{"name": "metrics", "containerPort": metrics}],
        "env": [{"name": "NODE_NAME", "value": node}, {"name": "DATABASE_URL", "value": "do-not-tell"}],
    }
    return {
        "metadata": {"name": f"agent-{node}", "namespace": "elf", "annotations": {"key": "do-not-tell"}},
        "spec": {"nodeName": node, "containers": [container]},
        "status": {
            "phase": "Pending" if state else "Running",
            "containerStatuses": [{"name": "agent", "state": state or {"running": {}}, "restartCount": 1}],
        },
    }


class _Answers(BaseHTTPRequestHandler):
    pages: dict[str, tuple[int, str]]

    def do_GET(self) -> None:
        code, text = self.pages[self.path]
        self.send_response(code)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(cluster: Cluster) -> Iterator[dict[str, tuple[int, str]]]:
    """What the agent on node a serves: path -> status and body. The plugin's own script asks for it."""
    pages = {
        "/status": (200, json.dumps(STATUS)),
        "/readyz": (200, "ok\n"),
        "/metrics": (
            200,
            'localredirect_redirects_total{policy="dns"} 40.0\nlocalredirect_backends{policy="dns"} 1.0\n',
        ),
    }
    server = HTTPServer(("127.0.0.1", 0), type("Answers", (_Answers,), {"pages": pages}))
    port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    cluster.answers("get pods component=agent", {"items": [agent_pod("a", health=port, metrics=port)]})
    cluster.answers("exec agent-a -- python -c", "RUN")
    cluster.answers("get nodes", {"items": [{"metadata": {"name": "a"}}]})
    yield pages
    server.shutdown()
    thread.join()
    server.server_close()


# --- the file


def test_it_needs_nothing_but_the_standard_library_and_an_old_python() -> None:
    tree = ast.parse(PLUGIN.read_text(), feature_version=OLDEST_PYTHON)
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [str(node.module)]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported <= sys.stdlib_module_names


def test_it_can_be_run_as_kubectl_runs_it() -> None:
    assert PLUGIN.stat().st_mode & stat.S_IXUSR
    done = subprocess.run([PLUGIN, "--help"], capture_output=True, text=True, check=True)
    assert "usage: kubectl lr" in done.stdout
    for command in ("status", "explain", "doctor", "bundle"):
        assert command in done.stdout


# --- status


def test_a_healthy_node_is_a_row_and_nothing_is_wrong(
    served: dict[str, tuple[int, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert served
    assert plugin.main(["status"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "NODE   AGENT     VERSION   BUILD      POLICIES                REDIRECTS/S",
        "a      running   0.3.0     0123abcd   1 Active, 1 NoBackend   0.0",
        "",
        "Nothing is wrong.",
    ]


def test_what_an_agent_says_of_itself_is_shown(
    served: dict[str, tuple[int, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    served["/readyz"] = (503, "not all sources are listed\n")
    assert plugin.main(["status"]) == 1
    assert "\na: the agent is not ready: not all sources are listed\n" in capsys.readouterr().out


def test_nodes_without_an_agent_that_answers_are_rows_with_the_reason(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.answers(
        "exec agent-a", "", "nobody answers at port 5810: refused\ncommand terminated with exit code 1\n", 1
    )
    assert plugin.main(["status"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "NODE   AGENT         VERSION   BUILD   POLICIES   REDIRECTS/S",
        "a      no answer",
        "b      not running",
        "c      none",
        "",
        "What is wrong:",
        "a: nobody answers at port 5810: refused",
        "b: the agent does not run: ImagePullBackOff: no such image",
        "c: there is no agent",
    ]


def test_without_the_right_to_list_nodes_the_agents_are_shown(
    served: dict[str, tuple[int, str]], cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    assert served
    refused = 'Error from server (Forbidden): nodes is forbidden: User "x" cannot list resource "nodes"\n'
    cluster.answers("get nodes", "", refused, 1)
    assert plugin.main(["status"]) == 0
    captured = capsys.readouterr()
    assert "a      running" in captured.out
    assert captured.err.startswith("nodes without an agent are not shown: Error from server (Forbidden): nodes is")


def changed(**changes: object) -> dict[str, Any]:
    """STATUS with another value at some keys, `datapath__hooks` for a key within a key."""
    found: dict[str, Any] = json.loads(json.dumps(STATUS))
    for path, value in changes.items():
        *parents, last = path.split("__")
        inner = found
        for name in parents:
            inner = inner[name]
        inner[last] = value
    return found


PROBLEMS: dict[str, tuple[dict[str, Any], str]] = {
    "a hook": (changed(datapath__hooks=STATUS["datapath"]["hooks"][1:]), "no program is attached at connect4"),
    "the lease": (changed(datapath__lease_withheld="policies"), "the lease is not renewed until all sources"),
    "another program": (
        changed(datapath__programs_before_us={"connect4": ["program 7"]}),
        "program 7 runs before ours at connect4 and may translate addresses first",
    ),
    "no Pods": (changed(datapath__warnings=["datapath.cgroup: no Pod"]), "datapath.cgroup: no Pod"),
    "not listed": (changed(source__synced=False), "not every source has been listed yet"),
    "refused": (changed(source__streams=[{"name": "x", "message": "refused: list Pods"}]), "refused: list Pods"),
    "the closer": (changed(closer={"state": "absent", "message": "no row"}), "the closer is absent: no row"),
    "metrics": (changed(metrics={"fault": "port taken"}), "port taken"),
    "an actor": (changed(actors=[{"name": "MapWriter", "state": "stuck"}]), "the actor MapWriter is stuck"),
    "a policy": (
        changed(policies=[{"name": "dns", "state": "Failed", "message": "map full"}]),
        "policy dns is Failed: map full",
    ),
}


@pytest.mark.parametrize("case", PROBLEMS)
def test_each_problem_of_a_status_is_named(case: str) -> None:
    given, says = PROBLEMS[case]
    (problem,) = plugin.problems_of(given)
    assert problem.startswith(says)


def test_a_healthy_status_has_no_problem() -> None:
    assert list(plugin.problems_of(STATUS)) == []


# --- explain and doctor


def test_explain_runs_on_the_node_of_the_pod_for_both_protocols(cluster: Cluster) -> None:
    cluster.answers("get pod client", {"metadata": {"namespace": "shop"}, "spec": {"nodeName": "a"}})
    cluster.answers("exec agent-a run.py explain", "a redirect\n")
    assert plugin.main(["explain", "client", "10.96.0.10:53", "-n", "shop"]) == 0
    assert cluster.asked("get pod client") == [["get", "pod", "client", "-n", "shop", "-o", "json"]]
    start = ["exec", "-n", "elf", "agent-a", "-c", "agent", "--", "python", "run.py", "explain"]
    assert cluster.asked("explain") == [
        [*start, "--from", "shop/client", "--to", f"10.96.0.10:53/{protocol}"] for protocol in ("UDP", "TCP")
    ]


def test_explain_takes_a_protocol_a_namespace_and_callers_that_are_no_pods(cluster: Cluster) -> None:
    cluster.answers("exec agent-a run.py explain", "", "said\ncommand terminated with exit code 1\n", 1)
    assert plugin.main(["explain", "--node", "a", "host", "[fd00::1]:53/udp"]) == 1
    assert cluster.asked("explain")[0][-4:] == ["--from", "host", "--to", "[fd00::1]:53/UDP"]
    cluster.answers("get pod client", {"metadata": {"namespace": "shop"}, "spec": {"nodeName": "a"}})
    plugin.main(["explain", "shop/client", "10.0.0.1:80/TCP"])
    assert cluster.asked("get pod client")[0][:5] == ["get", "pod", "client", "-n", "shop"]


def test_doctor_asks_every_node_and_names_those_that_it_cannot_ask(
    cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    cluster.answers("exec agent-a run.py doctor", "all is well\n")
    assert plugin.main(["doctor"]) == 1
    captured = capfd.readouterr()
    assert captured.out == "node a:\nall is well\nnode b:\n"
    assert captured.err == (
        "error: the agent on node b (Pod elf/agent-b) does not run: ImagePullBackOff: no such image\n"
    )
    assert plugin.main(["doctor", "--node", "a"]) == 0


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("10:00:00 redirect", "a: 10:00:00 redirect"),
        ('{"policy": "dns"}', '{"node": "a", "policy": "dns"}'),
    ],
    ids=["text", "JSON"],
)
def test_monitor_watches_every_node_that_it_can(
    cluster: Cluster, capfd: pytest.CaptureFixture[str], line: str, shown: str
) -> None:
    cluster.answers("exec agent-a", f"{line}\n")
    assert plugin.main(["monitor", "--policy", "dns", "--count", "1"]) == 0
    captured = capfd.readouterr()
    assert captured.out == f"{shown}\n"
    assert captured.err == ("node b is not watched, since its agent does not run: ImagePullBackOff: no such image\n")
    (asked,) = cluster.asked("exec")
    assert asked[-6:] == ["-o", "text", "--policy", "dns", "--count", "1"]


def test_monitor_of_a_pod_watches_its_node(cluster: Cluster, capfd: pytest.CaptureFixture[str]) -> None:
    cluster.answers("get pod client", {"metadata": {"namespace": "shop"}, "spec": {"nodeName": "a"}})
    cluster.answers("exec agent-a", "a redirect\n")
    assert plugin.main(["monitor", "client", "-n", "shop"]) == 0
    assert capfd.readouterr().out == "a redirect\n"
    (asked,) = cluster.asked("exec")
    assert asked[-2:] == ["--from", "shop/client"]
    assert plugin.main(["monitor", "--node", "b"]) == 1
    assert "the agent on node b (Pod elf/agent-b) does not run" in capfd.readouterr().err


def test_an_agent_that_has_no_monitor_yet_is_a_failure(cluster: Cluster, capfd: pytest.CaptureFixture[str]) -> None:
    cluster.answers("exec agent-a", "", "argument COMMAND: invalid choice: 'monitor'\n", 2)
    assert plugin.main(["monitor", "--node", "a"]) == 1
    assert "the agent on node a does not know the command monitor; upgrade" in capfd.readouterr().err


# --- what can go wrong

FAULTS: dict[str, tuple[tuple[str, ...], tuple[str, str], tuple[str, ...]]] = {
    # arguments; a command and what kubectl says to it; what the user reads
    "no agent": (
        ("status",),
        ("get pods", '{"items": []}'),
        ("there is no agent in the namespace elf", "--system-namespace NAME", "--context NAME"),
    ),
    "no right": (
        ("status",),
        ("get pods", 'Error from server (Forbidden): pods is forbidden: User "x" cannot list resource "pods"'),
        ('User "x" cannot list resource "pods"', "Ask for this right"),
    ),
    "no right to run commands": (
        ("doctor", "--node", "a"),
        ("exec", 'Error from server (Forbidden): pods "agent-a" is forbidden: cannot create resource "pods/exec"'),
        ('cannot create resource "pods/exec"',),
    ),
    "another context": (
        ("status", "--context", "tset"),
        ("--context tset", 'error: context "tset" does not exist'),
        ('context "tset" does not exist; there are: test, production',),
    ),
    "no API server": (
        ("status",),
        (
            "get pods",
            "The connection to the server 10.0.0.1:6443 was refused - did you specify the right host or port?",
        ),
        ("cannot reach the API server of the context test: The connection to the server 10.0.0.1:6443 was refused",),
    ),
    "no Pod": (
        ("explain", "nobody", "10.0.0.1:53"),
        ("get pod nobody", 'Error from server (NotFound): pods "nobody" not found'),
        ('pods "nobody" not found',),
    ),
    "no node yet": (
        ("explain", "client", "10.0.0.1:53"),
        ("get pod client", '{"metadata": {"namespace": "shop"}, "spec": {}}'),
        ("Pod shop/client is on no node yet",),
    ),
    "no agent on the node": (
        ("doctor", "--node", "c"),
        ("exec", ""),
        ("node c has no agent; nodes that have one: a, b",),
    ),
    "an old agent": (
        ("doctor", "--node", "a"),
        ("exec", "run.py: error: argument COMMAND: invalid choice: 'doctor' (choose from controller)"),
        ("the agent on node a does not know the command doctor; upgrade LocalRedirect",),
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_failure_is_one_line_that_says_what_to_do(
    case: str, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, (words, printed), parts = FAULTS[case]
    is_output = printed.startswith("{")
    cluster.answers(words, printed if is_output else "", "" if is_output else f"{printed}\n", 0 if is_output else 1)
    cluster.answers("config get-contexts", "test\nproduction\n")
    cluster.answers("config current-context", "test\n")
    assert plugin.main(arguments) == 1
    (line,) = [each for each in capsys.readouterr().err.splitlines() if each.startswith("error: ")]
    assert all(part in line for part in parts), line


def test_without_kubectl_the_plugin_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert plugin.main(["status"]) == 1
    assert capsys.readouterr().err == "error: kubectl is not on the PATH; this plugin runs it for everything\n"


def test_context_and_kubeconfig_go_to_kubectl(cluster: Cluster) -> None:
    plugin.main(["status", "--context", "test", "--kubeconfig", "/k"])
    assert cluster.asked("get pods")[0][:4] == ["--kubeconfig", "/k", "--context", "test"]


# --- bundle


def contents(path: Path) -> dict[str, str]:
    """Name without its first folder -> text."""
    with tarfile.open(path) as archive:
        found = {}
        for member in archive.getmembers():
            file = archive.extractfile(member)
            assert file
            found[member.name.partition("/")[2]] = file.read().decode()
        return found


def test_a_bundle_has_what_a_report_needs_without_secrets_and_names_what_is_missing(
    served: dict[str, tuple[int, str]], cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert served
    matcher = {"serviceName": "kube-dns", "namespace": "kube-system"}
    policy = {"metadata": {"name": "dns"}, "spec": {"frontend": {"serviceMatcher": matcher}}}
    cluster.answers("get localredirectpolicies", {"items": [policy]})
    cluster.answers("get service kube-dns -n kube-system", {"kind": "Service", "metadata": {"managedFields": ["x"]}})
    cluster.answers("get daemonsets,deployments,configmaps,pods", {"items": [agent_pod("a")]})
    cluster.answers("logs agent-a", "Authorization: Bearer abcdefghijkl\npassword=hunter2 ok\n")
    cluster.answers("version", {"serverVersion": {"gitVersion": "v1.37.2"}})
    cluster.answers("exec agent-a inspect", {"policies": []})
    cluster.answers("exec agent-a doctor", [{"check": "x", "ok": False}], code=1)
    cluster.answers("get events", "", "Error from server (Forbidden): events is forbidden\n", 1)
    output = tmp_path / "b.tar.gz"
    assert plugin.main(["bundle", "-o", str(output)]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{output}\n"
    found = contents(output)
    assert found.keys() == {
        "MISSING.txt", "versions.json", "nodes.json", "policies.json", "installation.json",
        "services/kube-system/kube-dns.json", "logs/agent-a/agent.log", "logs/agent-a/agent-previous.log",
        "nodes/a/status.json", "nodes/a/inspect.json", "nodes/a/doctor.json",
    }  # fmt: skip
    everything = "\n".join(found.values())
    for secret in ("do-not-tell", "abcdefghijkl", "hunter2", "managedFields"):
        assert secret not in everything
    assert '"value": "a"' in found["installation.json"], "NODE_NAME is kept"
    assert '"ok": false' in found["nodes/a/doctor.json"]
    assert "events-of-pods.txt: Error from server (Forbidden): events is forbidden" in found["MISSING.txt"]
    assert "not in it: events-of-policies.txt" in captured.err


@pytest.mark.usefixtures("cluster")
def test_a_bundle_that_cannot_be_written_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "missing" / "b.tar.gz"
    assert plugin.main(["bundle", "-o", str(path)]) == 1
    assert capsys.readouterr().err == f"error: --output: cannot write {path}: No such file or directory\n"


REDACTED = {
    "a token of a service account": ("token eyJhbGciOiJSUzI1.eyJpc3MiOiJr.c2ln end", "token REMOVED end"),
    "a header": ("Authorization: Bearer abc.def-123456", "Authorization: REMOVED"),
    "a setting": ("--password=hunter2 --port=1", "--REMOVED --port=1"),
    "nothing": ("policy dns is Active: 10.96.0.10:53/UDP", "policy dns is Active: 10.96.0.10:53/UDP"),
}


@pytest.mark.parametrize("case", REDACTED)
def test_secrets_in_text_are_removed(case: str) -> None:
    given, expected = REDACTED[case]
    assert plugin.redacted(given) == expected
