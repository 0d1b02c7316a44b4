"""Pins of other programs on the bpffs stay there, and are never taken for ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bpf.errors import DatapathError
from bpf.lifecycle.attachments import attached_builds
from bpf.lifecycle.bpffs import prepare_directory
from bpf.lifecycle.detaching import detach
from tests.lab import manifests
from tests.lab.agent import Agent
from tests.lab.lab import REMOTE, VIP, Lab, PodProcess
from tests.lab.processes import run

BUILD = "0123456789ab-65536-65536-65536"


@pytest.fixture
def bpffs(tmp_path: Path) -> Iterator[Path]:
    """The root of a bpffs that only this test uses, with pins of `tc` and Cilium."""
    root = tmp_path / "bpffs"
    root.mkdir()
    run("mount", "-t", "bpf", "bpf", str(root))
    for each in ("cilium/devices", "tc/globals"):
        (root / each).mkdir(parents=True)
    pin(root / "tc" / "globals" / "cilium_lb4")
    yield root
    run("umount", str(root))


def pin(path: Path) -> None:
    """Pins a map, as another program would."""
    path.parent.mkdir(parents=True, exist_ok=True)
    size = ("type", "array", "key", "4", "value", "4", "entries", "1", "name", "of_others")
    run("bpftool", "map", "create", str(path), *size)


def content(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def make(*names: str) -> Callable[[Path], None]:
    """Makes directories. A name that ends in `!` becomes a pin, one in `@` a symbolic link to Cilium's directory."""

    def made(directory: Path) -> None:
        for name in names:
            path = directory / name.rstrip("!@")
            path.parent.mkdir(parents=True, exist_ok=True)
            if name.endswith("!"):
                pin(path)
            elif name.endswith("@"):
                path.symlink_to(directory.parent / "cilium")
            else:
                path.mkdir(parents=True)

    return made


SHARED = {
    # case: what is in the directory, what the message names
    "directories of others": (make("cilium", "tc/globals"), "cilium, tc"),
    "a map of others": (make("a_map!"), "a_map"),
    "a name that is nearly a build's": (make("0123456789ab-1-2"), "0123456789ab-1-2"),
    "a pin with a build's name": (make(f"{BUILD}!"), BUILD),
    "a link with a build's name": (make(f"{BUILD}@"), BUILD),
    "a directory within a build": (make(f"{BUILD}/maps/globals"), f"{BUILD}/maps/globals"),
    "more beside a build's maps": (make(f"{BUILD}/maps", f"{BUILD}/states"), f"{BUILD}/states"),
    "a pin for the links": (make("links!"), "links"),
    "a link for the links": (make("links@"), "links"),
    "other links": (make("links/cil_sock4_connect!"), "links/cil_sock4_connect"),
    "a link for a link": (make("links/connect4@"), "links/connect4"),
    "a pin where programs are loaded": (make("loading!"), "loading"),
    "others load their programs there too": (make("loading/objects"), "loading/objects"),
    "a link for the socket storages": (make("sockets-0123456789ab@"), "sockets-0123456789ab"),
    "many": (make(*(f"d{i}" for i in range(9))), "d0, d1, d2, d3, d4 and 4 more"),
}


@pytest.mark.parametrize(("others", "named"), SHARED.values(), ids=SHARED)
def test_a_directory_with_other_content_is_refused_and_left_as_it_is(
    bpffs: Path, others: Callable[[Path], None], named: str
) -> None:
    directory = bpffs / "shared"
    directory.mkdir()
    others(directory)
    before = content(bpffs)
    with pytest.raises(DatapathError, match="Allowed: a directory of the agent's own") as refused:
        prepare_directory(directory)
    assert f"datapath.bpffs: {directory} holds files that are not this agent's: {named};" in str(refused.value)
    assert attached_builds(directory) == []
    detach(directory)
    after = content(bpffs)
    assert before - after <= {f"shared/{BUILD}/maps"}, "an empty directory of ours may go"
    assert after <= before


def test_the_commands_leave_a_shared_directory_as_it_is(lab: Lab, bpffs: Path) -> None:
    directory = bpffs / "shared"
    for each in ("cilium/devices", "tc/globals"):
        (directory / each).mkdir(parents=True)
    before = content(bpffs)
    agent = Agent(lab, {"datapath__bpffs": str(directory)})
    result = agent.command()
    assert result.returncode == 1
    assert f"datapath.bpffs: {directory} holds files that are not this agent's: cilium, tc;" in result.stderr
    assert agent.inspect("programs") == []
    assert f"kept {directory}/cilium" in agent.command("detach").stdout
    assert content(bpffs) == before


def test_the_root_of_a_bpffs_is_refused_under_any_name(lab: Lab, bpffs: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(bpffs)
    before = content(bpffs)
    for name in (bpffs, tmp_path / "link", bpffs / "tc" / ".."):
        with pytest.raises(DatapathError, match=r"is the root of a bpffs.* such as .*/balancing"):
            prepare_directory(name)
    assert "kept" in Agent(lab, {"datapath__bpffs": str(bpffs)}).command("detach").stdout
    assert content(bpffs) == before


@pytest.mark.parametrize("made", [True, False], ids=["the kubelet made it", "it does not exist"])
def test_without_a_bpffs_the_agent_says_what_to_mount_and_changes_nothing(lab: Lab, tmp_path: Path, made: bool) -> None:
    directory = tmp_path / "balancing"
    if made:
        for name in ("links", "loading/maps", f"{BUILD}/maps"):
            (directory / name).mkdir(parents=True)
        (directory / "links" / "connect4").write_text("somebody's")
    before = content(tmp_path)
    agent = Agent(lab, {"datapath__bpffs": str(directory)})
    result = agent.command()
    assert result.returncode == 1
    assert f"datapath.bpffs: {directory} is not on a bpffs" in result.stderr
    assert "mount -t bpf bpf /sys/fs/bpf" in result.stderr
    assert agent.command("detach").stdout.startswith("nothing to remove")
    assert agent.inspect("programs") == []
    assert content(tmp_path) == before


def test_a_pin_in_the_place_of_the_directory_is_refused(bpffs: Path) -> None:
    with pytest.raises(DatapathError, match="cannot be made"):
        prepare_directory(bpffs / "tc" / "globals" / "cilium_lb4")


def test_detach_keeps_what_others_have_added(lab: Lab, bpffs: Path) -> None:
    directory = bpffs / "balancing"
    agent = lab.agent(datapath__bpffs=str(directory))
    (build,) = {row["build"] for row in agent.inspect("programs")}
    later = {"cilium", "links/cil_sock4_connect", f"{build}/maps/globals", f"{build}/others", "loading/others"}
    make(*sorted(later - {"links/cil_sock4_connect"}), "links/cil_sock4_connect!")(directory)
    assert len(agent.inspect("programs")) == 8
    assert agent.status()["datapath"]["hooks"]
    agent.terminate()
    output = agent.command("detach").stdout
    assert "removed link connect4" in output
    assert f"kept {directory}/cilium: it is not ours" in output
    assert content(directory) == later | {"links", "loading", build, f"{build}/maps"}


def test_a_container_needs_only_the_directory(
    lab: Lab, bpffs: Path, tmp_path: Path, pods: list[PodProcess], client: PodProcess
) -> None:
    """The chart mounts only the directory. Agents that see it so, and agents that see the whole bpffs, adopt each
    other's programs."""
    lab.write("pod", manifests.pod(pods[0]))
    lab.write("policies", manifests.policy("vip"))
    directory, inside = bpffs / "balancing", tmp_path / "inside"
    inside.mkdir()
    whole = lab.agent(datapath__bpffs=str(directory))
    programs = whole.inspect("programs")
    whole.terminate()
    steps = f'mount --bind {directory} {inside}; umount {bpffs}; exec "$@"'
    within = ("unshare", "--mount", "--propagation", "private", "sh", "-ec", steps, "sh")
    agent = Agent(lab, {"datapath__bpffs": str(inside)})
    agent.start(within=within)
    assert "adopting" in agent.log.read_text()
    assert whole.inspect("programs") == programs
    assert client.do("udp", address=VIP, port=53)["who"] == "pod0"
    removed = agent.command("detach", within=within).stdout
    assert "removed link connect4" in removed
    assert client.do("udp", address=VIP, port=53)["who"] == REMOTE
    agent.terminate()
    assert content(directory) == set()
