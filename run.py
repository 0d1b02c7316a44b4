#!/usr/bin/env python3
"""The command line (docs/commands.md). Each command imports what it needs when it runs, so that others start faster.

Exit codes: 0 for success and for a stop by a signal, 1 for a failure, 2 for wrong usage or a wrong configuration.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from bpf.errors import DatapathError
from config.load import ConfigError, load
from config.logs import configure
from config.settings import Settings
from config.version import VERSION
from k8s.api.errors import SourceConfigError

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
    common = _config_option(argparse.SUPPRESS)  # so that --config before the command stays in force
    commands = parser.add_subparsers(metavar="COMMAND")
    controller = commands.add_parser(
        "controller", parents=[common], help="report on all policies of the cluster: their status, and Events"
    )
    controller.set_defaults(run=_controller)
    validate = commands.add_parser("validate", parents=[common], help="check policy manifests, without a cluster")
    validate.add_argument("files", nargs="+", type=Path, metavar="FILE")
    validate.set_defaults(run=_validate)
    convert = commands.add_parser(
        "convert", parents=[common], help="print manifests of Cilium's policies or of NodeLocal DNSCache as ours"
    )
    convert.add_argument("files", nargs="+", type=Path, metavar="FILE")
    convert.set_defaults(run=_convert)
    inspect = commands.add_parser("inspect", parents=[common], help="print what is installed in the kernel")
    inspect.add_argument("view", nargs="?", choices=VIEWS, help="one view; all views when left out")
    inspect.add_argument("-o", "--output", choices=("table", "json"), default="table")
    inspect.set_defaults(run=_inspect)
    status = commands.add_parser(
        "status", parents=[common], help="print what the agent or controller of this machine says about itself"
    )
    status.add_argument("-o", "--output", choices=("table", "json"), default="table")
    status.set_defaults(run=_status)
    explain = commands.add_parser(
        "explain", parents=[common], help="say what the kernel does with a call, step by step, and why"
    )
    explain.add_argument(
        "--from", dest="client", required=True, metavar="CLIENT", help="NAMESPACE/POD, host, pid:N or cgroup:PATH"
    )
    explain.add_argument(
        "--to",
        dest="call",
        required=True,
        metavar="IP:PORT/PROTO",
        help="such as 10.96.0.10:53/UDP or [fd00::10]:80/TCP",
    )
    explain.add_argument("-o", "--output", choices=("text", "json"), default="text")
    explain.set_defaults(run=_explain)
    doctor = commands.add_parser(
        "doctor",
        parents=[common],
        help="check this node and its agent, and say what is missing or wrong, each with its remedy",
    )
    doctor.add_argument("-o", "--output", choices=("text", "json"), default="text")
    doctor.set_defaults(run=_doctor)
    monitor = commands.add_parser("monitor", parents=[common], help="print what is decided about calls, as it happens")
    monitor.add_argument("--policy", metavar="NAME", help="only calls to the frontends of this policy")
    monitor.add_argument(
        "--from", dest="client", metavar="CLIENT", help="only this caller: NAMESPACE/POD, host, pid:N or cgroup:PATH"
    )
    monitor.add_argument("--count", type=_positive, metavar="N", help="end after N lines")
    monitor.add_argument("--seconds", type=_positive, metavar="S", help="end after S seconds")
    monitor.add_argument("-o", "--output", choices=("text", "json"), default="text")
    monitor.set_defaults(run=_monitor)
    detach = commands.add_parser("detach", parents=[common], help="remove everything of ours from the kernel")
    detach.add_argument(
        "--stay",
        action="store_true",
        help="keep running afterwards, and answer the agent's health checks until a signal arrives (k8s/detach.yaml)",
    )
    detach.set_defaults(run=_detach)
    closer = commands.add_parser(
        "closer", parents=[common], help="close sockets that were redirected to a Pod which is out of use"
    )
    closer.set_defaults(run=_closer)
    return parser


def _config_option(default: str | None) -> argparse.ArgumentParser:
    option = argparse.ArgumentParser(add_help=False)
    option.add_argument("--config", type=Path, default=default, metavar="FILE", help="configuration file")
    return option


def _agent(_options: argparse.Namespace, settings: Settings) -> int:
    configure(settings.log)
    from actors.agent_wiring import agent_specs  # noqa: PLC0415
    from actors.framework.process import ActorProcess  # noqa: PLC0415
    from actors.messages.reports import REPORTERS  # noqa: PLC0415
    from actors.watching.sources import agent_sources  # noqa: PLC0415
    from bpf.lifecycle.startup import prepare  # noqa: PLC0415

    process = ActorProcess("the attached programs keep working with the last state")
    sources = agent_sources(settings)
    datapath = prepare(settings.datapath)
    _log.info(
        "LocalRedirect %s: node %s, build %s, cgroup %s", VERSION, settings.node_name, datapath.build, datapath.cgroup
    )
    return 0 if process.run(agent_specs(settings, sources, datapath), REPORTERS) else FAILURE


def _controller(_options: argparse.Namespace, settings: Settings) -> int:
    if settings.source.kind != "kubernetes":
        print(f"source.kind: {settings.source.kind} is wrong for a controller; it must be kubernetes", file=sys.stderr)
        return USAGE
    configure(settings.log)
    from actors.controller_wiring import controller_specs  # noqa: PLC0415
    from actors.framework.process import ActorProcess  # noqa: PLC0415
    from actors.messages.reports import REPORTERS  # noqa: PLC0415

    _log.info("LocalRedirect %s: controller", VERSION)
    process = ActorProcess("redirects do not depend on the controller, and statuses that it wrote stay")
    return 0 if process.run(controller_specs(settings, process.end), REPORTERS) else FAILURE


def _closer(_options: argparse.Namespace, settings: Settings) -> int:
    configure(settings.log)
    from bpf.closing.closer import Closer, wait_for_signal  # noqa: PLC0415

    if settings.redirect.close_stale_sockets:
        Closer(settings.datapath.bpffs).run()
    else:
        _log.info("redirect.close_stale_sockets is false: the closer does nothing")
        wait_for_signal()
    return 0


def _validate(options: argparse.Namespace, settings: Settings) -> int:
    from k8s.commands.validate import validate  # noqa: PLC0415

    faults = validate(options.files, settings.redirect)
    for fault in faults:
        print(fault)
    return FAILURE if faults else 0


def _convert(options: argparse.Namespace, settings: Settings) -> int:
    from k8s.commands.convert import convert  # noqa: PLC0415

    converted = convert(options.files, settings.redirect)
    print(converted.manifests, end="")
    for fault in converted.faults:
        print(fault, file=sys.stderr)
    return FAILURE if converted.faults else 0


def _inspect(options: argparse.Namespace, settings: Settings) -> int:
    from bpf.inspecting.tables import table  # noqa: PLC0415
    from bpf.inspecting.views import view  # noqa: PLC0415

    names = (options.view,) if options.view else VIEWS
    views = {name: view(name, settings.datapath.bpffs) for name in names}
    if options.output == "json":
        print(json.dumps(views[options.view] if options.view else views, indent=1))
        return 0
    for name, rows in views.items():
        heading = "" if options.view else f"{name}:\n"
        print(heading + table(rows), end="" if options.view else "\n")
    return 0


def _status(options: argparse.Namespace, settings: Settings) -> int:
    from actors.commands.own_status import NoAnswer, fetch_status  # noqa: PLC0415
    from actors.commands.status import text  # noqa: PLC0415

    try:
        found = fetch_status(settings.health)
    except NoAnswer as error:
        print(f"{error}; run.py explain and run.py inspect work without an agent", file=sys.stderr)
        return FAILURE
    print(json.dumps(found, indent=1) if options.output == "json" else text(found).rstrip("\n"))
    return 0


def _explain(options: argparse.Namespace, settings: Settings) -> int:
    from actors.commands.explain import answer, document, text  # noqa: PLC0415
    from bpf.explaining.call import WrongUsage  # noqa: PLC0415
    from k8s.commands.pods import NoSuchPod  # noqa: PLC0415

    try:
        found = answer(options.client, options.call, settings)
    except WrongUsage as error:
        print(error, file=sys.stderr)
        return USAGE
    except NoSuchPod as error:
        print(f"--from: {error}", file=sys.stderr)
        return FAILURE
    print(json.dumps(document(found), indent=1) if options.output == "json" else text(found))
    return 0


def _doctor(options: argparse.Namespace, settings: Settings) -> int:
    from actors.commands.doctor import document, examine, text  # noqa: PLC0415

    findings = list(examine(settings))
    print(json.dumps(document(findings), indent=1) if options.output == "json" else text(findings))
    return 0 if all(each.ok for each in findings) else FAILURE


def _positive(text: str) -> int:
    number = int(text) if text.isascii() and text.isdecimal() else 0
    if number < 1:
        msg = f"{text!r} is wrong; it must be a whole number of at least 1"
        raise argparse.ArgumentTypeError(msg)
    return number


def _monitor(options: argparse.Namespace, settings: Settings) -> int:
    from actors.commands.monitor import lines  # noqa: PLC0415
    from actors.framework.stop_signals import StoppableWait  # noqa: PLC0415
    from bpf.explaining.call import WrongUsage, parse_client  # noqa: PLC0415

    try:
        client = parse_client(options.client) if options.client is not None else None
    except WrongUsage as error:
        print(error, file=sys.stderr)
        return USAGE
    printed = lines(
        settings,
        StoppableWait(options.seconds),
        policy=options.policy,
        client=client,
        count=options.count,
        as_json=options.output == "json",
    )
    try:
        for line in printed:
            print(line, flush=True)
    except BrokenPipeError:  # whoever reads our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _detach(options: argparse.Namespace, settings: Settings) -> int:
    from bpf.lifecycle.detaching import detach  # noqa: PLC0415
    from bpf.lifecycle.pins import foreign  # noqa: PLC0415

    removed = detach(settings.datapath.bpffs)
    print(
        "\n".join(f"removed {each}" for each in removed)
        or f"nothing to remove: the kernel holds nothing of ours under {settings.datapath.bpffs}"
    )
    for name in foreign(settings.datapath.bpffs):
        print(f"kept {settings.datapath.bpffs / name}: it is not ours")
    if options.stay:
        from actors.commands.detached import stand_in  # noqa: PLC0415

        sys.stdout.flush()
        configure(settings.log)
        stand_in(settings.health)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
