"""Every fault in every way, under load."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from tests.bench.losses import bed as beds
from tests.bench.losses.bed import Bed, Measured
from tests.bench.losses.faults import FAULTS, Fault
from tests.bench.losses.tables import tables
from tests.bench.losses.ways import WAYS, Way
from tests.cluster import dns, installation
from tests.cluster.node import Node

BEFORE_SECONDS = 2.0
AFTER_SECONDS = 5.0
"""How long the load goes on, with the quiet sockets and proxies, after the way has recovered."""


def measure(faults: Sequence[Fault] = FAULTS, ways: Sequence[type[Way]] = WAYS) -> str:
    """Runs each fault in each way. Returns the tables."""
    results: dict[tuple[Fault, type[Way]], Measured] = {}
    with Node() as node, dns.upstream(node):
        beds.load_images(node)
        installation.load_images(node)
        bed = Bed(node)
        bed.deploy()
        with bed.web():
            for kind in ways:
                way = kind(bed)
                with way.deployed():
                    for fault in faults:
                        if kind in fault.ways:
                            results[fault, kind] = run(way, fault)
                            print(f"{kind.name}, {fault.name}: {results[fault, kind]}", file=sys.stderr, flush=True)
    return tables(dict(sorted(results.items(), key=lambda each: FAULTS.index(each[0][0]))))


def run(way: Way, fault: Fault) -> Measured:
    way.renew()
    way.node.forget_udp()
    with way.bed.proxies() as requests, way.bed.load() as load:
        time.sleep(BEFORE_SECONDS)
        fault.happen(way)
        way.wait_whole()
        load.ask_quiet()
        requests.ask_quiet()
        time.sleep(AFTER_SECONDS)
    found = requests.results
    return Measured(
        lookups=load.result,
        nginx=found["busy-nginx"],
        haproxy=found["busy-haproxy"],
        quiet_nginx=found["quiet-nginx"],
        quiet_haproxy=found["quiet-haproxy"],
    )
