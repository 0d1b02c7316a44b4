"""One laboratory for all kernel tests; each module has an agent of its own and leaves no manifests behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.lab import CLUSTER_IP6, VIPS, Lab, PodProcess


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    with Lab() as made:
        for port, protocol in ((53, "UDP"), (54, "UDP"), (80, "TCP"), (8080, "TCP")):
            for address in VIPS if protocol == "UDP" else ("0.0.0.0",):  # a UDP server answers from where it is bound
                made.remote.do("serve", address=address, port=port, protocol=protocol)
        made.remote.do("serve", address=CLUSTER_IP6, port=53, protocol="UDP")
        yield made


@pytest.fixture(scope="session")
def pods(lab: Lab) -> list[PodProcess]:
    """Three Pods that serve UDP 53 and TCP 80 on both families."""
    made = [lab.pod(f"pod{i}") for i in range(3)]
    for each in made:
        for address in (each.address, each.address6):
            each.do("serve", address=address, port=53, protocol="UDP")
            each.do("serve", address=address, port=80, protocol="TCP")
    return made


@pytest.fixture(scope="session")
def client(lab: Lab) -> PodProcess:
    return lab.pod("client")


@pytest.fixture(autouse=True)
def no_manifests_left(lab: Lab) -> Iterator[None]:
    yield
    for path in lab.manifests.iterdir():
        path.unlink()
