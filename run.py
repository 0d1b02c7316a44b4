#!/usr/bin/env python3
"""The command line, and the wiring of the agent (docs/commands.md).

Exit codes: 0 success, or stopped by a signal; 1 failure; 2 wrong usage or a wrong configuration.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import signal
import sys
import threading
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from actors.framework.stop_signals import StopSignals
from bpf.errors import DatapathError
from config.load import ConfigError, load
from config.logs import configure
from config.settings import HealthSettings, Settings
from config.version import VERSION
from k8s.api.trouble import SourceConfigError

if TYPE_CHECKING:
    from actors.framework.supervisor import ChildSpec

_log = logging.getLogger("run")

FAILURE = 1
USAGE = 2
VIEWS = ("policies", "frontends", "backends", "affinity", "qos", "programs")


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    try:
        settings = load(options.config, os.environ)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return USAGE
    try:
        return int(options.run(options, settings))
    except (DatapathError, SourceConfigError, OSError) as error:
        print(error, file=sys.stderr)
        return FAILURE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="run.py",
        parents=[_config_option(None)],
        description="Redirects connections to Services and virtual IPs to Pods of the same node. "
        "Without a command it runs the agent in the foreground.",
    )
    parser.add_argument("--version", action="version", version=f"LocalRedirect {VERSION}")
    parser.set_defaults(run=_agent)
    common = _config_option(argparse.SUPPRESS)  # left out after the command, what came before it stays
    commands = parser.add_subparsers(metavar="COMMAND")
    controller = commands.add_parser(
        "controller", parents=[common], help="report on all policies of the cluster: their status, and Events"
    )
    controller.set_defaults(run=_controller)
    validate = commands.add_parser("validate", parents=[common], help="check policy manifests, without a cluster")
    validate.add_argument("files", nargs="+", type=Path, metavar="FILE")
    validate.set_defaults(run=_validate)
    inspect = commands.add_parser("inspect", parents=[common], help="print what is installed in the kernel")
    inspect.add_argument("view", nargs="?", choices=VIEWS, help="one view; all of them when left out")
    inspect.add_argument("-o", "--output", choices=("table", "json"), default="table")
    inspect.set_defaults(run=_inspect)
    detach = commands.add_parser("detach", parents=[common], help="take everything of ours out of the kernel")
    detach.add_argument(
        "--stay",
        action="store_true",
        help="then stay in the agent's place until a signal, and answer its health checks (k8s/detach.yaml)",
    )
    detach.set_defaults(run=_detach)
    return parser


def _config_option(default: str | None) -> argparse.ArgumentParser:
    option = argparse.ArgumentParser(add_help=False)
    option.add_argument("--config", type=Path, default=default, metavar="FILE", help="configuration file")
    return option


def _agent(_options: argparse.Namespace, settings: Settings) -> int:
    configure(settings.log)
    # Late: the other commands need none of it, and start sooner.
    from actors.agent_wiring import child_specs  # noqa: PLC0415
    from actors.watching.sources import agent_sources  # noqa: PLC0415
    from bpf.startup import prepare  # noqa: PLC0415

    process = _Process("the attached programs keep working with the last state")
    sources = agent_sources(settings)
    datapath = prepare(settings.datapath)
    _log.info(
        "LocalRedirect %s: node %s, build %s, cgroup %s", VERSION, settings.node_name, datapath.build, datapath.cgroup
    )
    return process.run(child_specs(settings, sources, datapath))


def _controller(_options: argparse.Namespace, settings: Settings) -> int:
    if settings.source.kind != "kubernetes":
        print(f"source.kind: {settings.source.kind} is wrong for a controller; it must be kubernetes", file=sys.stderr)
        return USAGE
    configure(settings.log)
    from actors.controller_wiring import controller_specs  # noqa: PLC0415

    _log.info("LocalRedirect %s: controller", VERSION)
    process = _Process("redirects do not depend on the controller, and statuses that it wrote stay")
    return process.run(controller_specs(settings, process.end))


class _Process:
    """The main thread of a process of actors: it waits for a signal, or for what the actors can't get over."""

    def __init__(self, comfort: str) -> None:
        """`comfort` is what an operator wants to know when it ends by a failure."""
        import pykka.debug  # noqa: PLC0415

        _raise_descriptor_limit()
        self._comfort = comfort
        self._signals = StopSignals()
        self._fatal: list[str] = []
        signal.signal(signal.SIGUSR1, pykka.debug.log_thread_tracebacks)

    def end(self, reason: str) -> None:
        """In any thread."""
        self._fatal.append(reason)
        self._signals.end()

    def run(self, specs: Sequence[ChildSpec]) -> int:
        from actors.framework.supervisor import Supervisor  # noqa: PLC0415

        supervisor = Supervisor.start(specs=specs, on_fatal=self.end)
        self._signals.wait()
        fatal = self._fatal[:1]  # its end, too, is one for the supervisor
        for reason in fatal:
            _log.critical("%s; %s", reason, self._comfort)
        _stop(supervisor)
        return FAILURE if fatal else 0


def _raise_descriptor_limit() -> None:
    """To what the process may have. The soft limit is low for programs that use select(2), and this is none of them."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _stop(supervisor: object) -> None:
    """Everything stays attached; whatever does not stop in time dies with the process."""
    import pykka  # noqa: PLC0415

    assert isinstance(supervisor, pykka.ActorRef)
    try:
        supervisor.stop(timeout=4)
    except (pykka.Timeout, pykka.ActorDeadError):
        _log.warning("some actors did not stop in time")


def _validate(options: argparse.Namespace, settings: Settings) -> int:
    from k8s.commands.validate import validate  # noqa: PLC0415

    faults = validate(options.files, settings.redirect)
    for fault in faults:
        print(fault)
    return FAILURE if faults else 0


def _inspect(options: argparse.Namespace, settings: Settings) -> int:
    from bpf.inspect import view  # noqa: PLC0415
    from bpf.tables import table  # noqa: PLC0415

    names = (options.view,) if options.view else VIEWS
    views = {name: view(name, settings.datapath.bpffs) for name in names}
    if options.output == "json":
        print(json.dumps(views[options.view] if options.view else views, indent=1))
        return 0
    for name, rows in views.items():
        heading = "" if options.view else f"{name}:\n"
        print(heading + table(rows), end="" if options.view else "\n")
    return 0


def _detach(options: argparse.Namespace, settings: Settings) -> int:
    from bpf.detaching import detach  # noqa: PLC0415
    from bpf.pins import foreign  # noqa: PLC0415

    removed = detach(settings.datapath.bpffs)
    print(
        "\n".join(f"removed {each}" for each in removed)
        or f"nothing to remove: the kernel holds nothing of ours under {settings.datapath.bpffs}"
    )
    for name in foreign(settings.datapath.bpffs):
        print(f"kept {settings.datapath.bpffs / name}: it is not ours")
    if options.stay:
        sys.stdout.flush()
        configure(settings.log)
        _stay(settings.health)
    return 0


def _stay(health: HealthSettings) -> None:
    """Keeps the agent's probes content, so that a patch of the DaemonSet has nothing but the command to change."""
    from actors.framework.http import HttpServer  # noqa: PLC0415
    from actors.framework.http_exchange import Answer  # noqa: PLC0415

    def detached() -> Answer:
        return Answer(HTTPStatus.OK, "text/plain", b"detached\n")

    routes = {"/healthz": detached, "/readyz": detached}
    server = HttpServer(section="health", address=health.address, port=health.port, routes=routes)
    signals = StopSignals()
    serving = threading.Thread(target=server.run, name="health")
    serving.start()
    signals.wait()
    server.stop()
    serving.join()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
