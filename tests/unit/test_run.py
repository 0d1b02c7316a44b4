"""The command line: exit codes, where --config may stand, and how the agent ends."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pykka
import pytest

import run
from actors import agent_wiring, controller_wiring
from actors.framework import supervisor as supervising
from actors.framework.actor import AgentActor
from actors.framework.supervisor import ChildSpec
from bpf.errors import DatapathError
from bpf.inspecting.tables import table
from bpf.lifecycle import startup
from config.version import VERSION
from tests.unit.peers import free_port, http_get

EXAMPLES = Path(__file__).parents[2] / "k8s" / "examples"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration that reads a directory, and whose bpffs holds nothing."""
    path = tmp_path / "agent.yaml"
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    path.write_text(f"source: {{kind: directory, directory: {manifests}}}\ndatapath: {{bpffs: {tmp_path / 'bpffs'}}}\n")
    return path


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tests have no settings from the environment, and leave signals, logging and limits to the test runner."""
    for name in ("NODE_NAME", "SOURCE_KIND", "KUBECONFIG", "REDIRECT_QOS_LIMIT", "LOG_LEVEL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(run, "configure", lambda _: None)
    handlers = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, descriptors)
    signal.set_wakeup_fd(-1)
    for each, handler in handlers.items():
        signal.signal(each, handler)


def test_each_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    names = (
        "controller",
        "validate",
        "convert",
        "inspect",
        "status",
        "explain",
        "doctor",
        "monitor",
        "closer",
        "detach",
    )
    for command in ([], *([name] for name in names)):
        with pytest.raises(SystemExit) as ended:
            run.main([*command, "--help"])
        assert ended.value.code == 0
        assert "usage: run.py" in capsys.readouterr().out


def test_version_is_the_release(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"LocalRedirect {VERSION}\n"


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["validate"], ["inspect", "nonsense"], ["inspect", "-o", "xml"], ["--nonsense"], ["--config"]],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2_and_prints_the_usage(
    arguments: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run.main(arguments)
    assert ended.value.code == 2
    assert "usage: run.py" in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], ["inspect"], ["detach"], ["controller"]], ids=str)
def test_a_wrong_configuration_exits_with_2_and_names_the_key(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text("metrics: {port: 70000}\n")
    assert run.main([*command, "--config", str(path)]) == 2
    assert "metrics.port" in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], ["controller"]], ids=["agent", "controller"])
@pytest.mark.parametrize("kind", ["kind: kubernetes, ", ""], ids=["given", "by default"])
def test_a_cluster_that_is_not_configured_is_a_failure_that_names_the_key(
    kind: str, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "agent.yaml"
    config.write_text(f"source: {{{kind}kubeconfig: {tmp_path}/absent}}\n")
    assert run.main([*command, "--config", str(config)]) == 1
    assert f"source.kubeconfig: {tmp_path}/absent" in capsys.readouterr().err


@pytest.mark.parametrize("before", [True, False], ids=["before the command", "after it"])
def test_config_may_stand_before_or_after_the_command(
    *, before: bool, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    option = ["--config", str(config)]
    assert run.main([*option, "detach"] if before else ["detach", *option]) == 0
    assert str(tmp_path / "bpffs") in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_detach_can_stay_and_answer_the_agents_health_checks_until_a_signal(
    number: signal.Signals, config: Path
) -> None:
    port = free_port()
    config.write_text(config.read_text() + f"health: {{port: {port}}}\n")
    command = [sys.executable, "run.py", "detach", "--stay", "--config", str(config)]
    with subprocess.Popen(command, cwd=EXAMPLES.parents[1], stdout=subprocess.PIPE, text=True) as staying:
        assert staying.stdout
        assert staying.stdout.readline().startswith("nothing to remove")
        try:
            answers = wait_for(lambda: [http_get(port, path)[0] for path in ("/healthz", "/readyz", "/status")])
        finally:
            staying.send_signal(number)
        assert staying.wait(10) == 0
    assert answers == [200, 200, 404]


def wait_for(ask: Callable[[], list[int]]) -> list[int]:
    """Repeats the question until somebody listens."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return ask()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.parametrize("view", run.VIEWS)
def test_a_view_of_nothing_is_an_empty_array(view: str, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["inspect", view, "-o", "json", "--config", str(config)]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_all_views_are_one_object_by_name(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["inspect", "-o", "json", "--config", str(config)]) == 0
    assert json.loads(capsys.readouterr().out) == {view: [] for view in run.VIEWS}


def test_all_views_as_tables_have_their_names_as_headings(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["inspect", "--config", str(config)]) == 0
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if line.endswith(":")] == [f"{view}:" for view in run.VIEWS]


def test_a_table_lines_up_its_columns() -> None:
    rows: list[dict[str, object]] = [
        {"policy": "dns", "backends": ["10.0.0.5:53", "10.0.0.6:53"], "passes": {"qos": 1, "lease": 0}},
        {"policy": "web-frontend", "backends": [], "passes": {}},
    ]
    assert table(rows).splitlines() == [
        "POLICY        BACKENDS                 PASSES",
        "dns           10.0.0.5:53,10.0.0.6:53  qos=1 lease=0",
        "web-frontend  -                        -",
    ]


def test_the_users_examples_are_valid(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["validate", *map(str, sorted(EXAMPLES.glob("*.yaml")))]) == 0
    assert capsys.readouterr().out == ""


def test_a_manifest_with_a_fault_exits_with_1_and_prints_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "policy.yaml"
    text = next(iter(sorted(EXAMPLES.glob("address*.yaml")))).read_text()
    path.write_text(text.replace("kind: LocalRedirectPolicy", "kind: LocalRedirectPolicy\nstatus: {}\nnonsense: 1", 1))
    assert run.main(["validate", str(path)]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(str(path)) and "nonsense" in line


def test_converted_manifests_go_to_stdout_and_faults_to_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = Path(__file__).parent / "k8s" / "conversion" / "cilium.yaml"
    assert run.main(["convert", str(given)]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    converted = tmp_path / "converted.yaml"
    converted.write_text(captured.out)
    assert run.main(["validate", str(converted)]) == 0
    assert run.main(["convert", str(converted)]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith(f"{converted}: there is nothing to convert; it must have a ")


# --- the agent's end --------------------------------------------------------------------------------------------------


class Child(AgentActor):
    """Sends this process a signal when it starts, or fails when there is no signal to send."""

    def __init__(self, number: signal.Signals | None) -> None:
        super().__init__()
        self._number = number

    def started(self) -> None:
        if self._number is None:
            raise ValueError("out of luck")
        os.kill(os.getpid(), self._number)


def _install(monkeypatch: pytest.MonkeyPatch, number: signal.Signals | None) -> None:
    prepared = SimpleNamespace(build="abc", cgroup=Path("/sys/fs/cgroup"))
    monkeypatch.setattr(startup, "prepare", lambda _: prepared)
    monkeypatch.setattr(agent_wiring, "agent_specs", lambda *_: [ChildSpec("Child", lambda: Child.start(number))])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_agent_with_0_and_all_actors_stopped(
    number: signal.Signals, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install(monkeypatch, number)
    assert run.main(["--config", str(config)]) == 0
    assert pykka.ActorRegistry.get_all() == []


@pytest.mark.usefixtures("expects_failures")
def test_an_actor_that_keeps_failing_ends_the_agent_with_1(
    config: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervising, "RESTART_LIMIT", 2)
    _install(monkeypatch, None)
    assert run.main(["--config", str(config)]) == 1
    assert (
        "Child failed more than 2 times within 60 s; the attached programs keep working with the last state"
        in caplog.messages
    )


@pytest.mark.parametrize("error", [DatapathError("this kernel lacks everything"), PermissionError(13, "no rights")])
def test_a_datapath_that_cannot_be_prepared_exits_with_1_and_prints_one_line(
    error: Exception, config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def prepare(_settings: object) -> None:
        raise error

    monkeypatch.setattr(startup, "prepare", prepare)
    assert run.main(["--config", str(config)]) == 1
    assert capsys.readouterr().err == f"{error}\n"


# --- the controller ---------------------------------------------------------------------------------------------------


def test_a_controller_of_a_directory_is_a_wrong_configuration(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["controller", "--config", str(config)]) == 2
    assert capsys.readouterr().err == "source.kind: directory is wrong for a controller; it must be kubernetes\n"


def _cluster_config(tmp_path: Path) -> Path:
    config = tmp_path / "cluster.yaml"
    config.write_text("source: {kind: kubernetes}\n")
    return config


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_controller_with_0(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = [ChildSpec("Child", lambda: Child.start(number))]
    monkeypatch.setattr(controller_wiring, "controller_specs", lambda *_: specs)
    assert run.main(["controller", "--config", str(_cluster_config(tmp_path))]) == 0
    assert pykka.ActorRegistry.get_all() == []


@pytest.mark.parametrize("command", [[], ["controller"]], ids=["agent", "controller"])
def test_the_process_raises_its_limit_of_descriptors_to_what_it_may_have(
    command: list[str], config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard // 2, hard))
    _install(monkeypatch, signal.SIGTERM)
    specs = [ChildSpec("Child", lambda: Child.start(signal.SIGTERM))]
    monkeypatch.setattr(controller_wiring, "controller_specs", lambda *_: specs)
    assert run.main([*command, "--config", str(_cluster_config(tmp_path) if command else config)]) == 0
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)


def test_a_controller_that_lost_the_election_ends_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def specs(_settings: object, on_lost: Callable[[str], None]) -> list[ChildSpec]:
        on_lost("b leads now")
        return []

    monkeypatch.setattr(controller_wiring, "controller_specs", specs)
    assert run.main(["controller", "--config", str(_cluster_config(tmp_path))]) == 1
    assert "b leads now; redirects do not depend on the controller, and statuses that it wrote stay" in caplog.messages


def test_the_controllers_actors_are_built_without_a_kernel_side() -> None:
    script = (
        "import sys, run\n"
        "from actors import controller_wiring\n"
        "assert 'bcc' not in sys.modules and 'bpf.lifecycle.datapath' not in sys.modules, 'the kernel side is loaded'\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=EXAMPLES.parents[1], check=False)
    assert done.returncode == 0
