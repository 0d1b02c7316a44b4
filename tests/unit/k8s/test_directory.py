"""DirectorySource on a real directory: which events follow from changes of files. They are awaited, never slept for."""

from __future__ import annotations

import logging
import logging.handlers
import os
import queue
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from inotify_simple import Event, INotify, flags

from actors.watching.sources import agent_sources
from config.settings import RedirectSettings, Settings, SourceSettings
from k8s.objects.identity import identity, identity_text
from k8s.objects.manifests import Manifest, read_manifest
from k8s.objects.model import Node, Service
from k8s.sources import manifest_files
from k8s.sources.directory import DirectorySource
from k8s.sources.source import Heard, ListingEnded, ListingStarted, Removed, SourceEvent, Upserted
from tests.unit.objects import ALL_KINDS

TIMEOUT = 5.0


def pod(name: str, label: str = "x", node: str = "here") -> str:
    return (
        "---\napiVersion: v1\nkind: Pod\n"
        f"metadata: {{name: {name}, labels: {{l: {label}}}}}\nspec: {{nodeName: {node}}}\n"
    )


NODE = "---\n{apiVersion: v1, kind: Node, metadata: {name: here, labels: {tick: '%s'}}}\n"


class Running:
    """A source in its thread, and its events."""

    def __init__(self, directory: Path, *, reports_files: bool = True, kinds: frozenset[str] = ALL_KINDS) -> None:
        self.directory = directory
        self.events: queue.Queue[SourceEvent] = queue.Queue()
        self.source = DirectorySource(
            directory,
            kinds=kinds,
            node_name="here",
            redirect=RedirectSettings(),
            deliver=self.events.put,
            reports_files=reports_files,
        )
        self.thread = threading.Thread(target=self.source.run, daemon=True)
        self.ticks = 0

    def start(self) -> None:
        self.thread.start()

    def stop(self) -> None:
        self.source.stop()
        if self.thread.ident is not None:
            self.thread.join(TIMEOUT)
            assert not self.thread.is_alive()

    def next(self) -> str:
        """`started REASON`, `ended`, `+ POD LABEL` or `- KEY`."""
        match self.next_event():
            case ListingStarted(reason=reason):
                return f"started {reason}"
            case ListingEnded():
                return "ended"
            case Removed(key=key):
                return f"- {str(key).removeprefix('default/')}"
            case Upserted(object=Node(labels=labels)):
                return f"tick {dict(labels)['tick']}"
            case Upserted(object=found):
                label = dict(getattr(found, "labels", ())).get("l", "")
                return f"+ {identity_text(identity(found)).removeprefix('Pod/default/')} {label}".rstrip()
        raise AssertionError("no such event")

    def next_event(self) -> SourceEvent:
        """The next event about objects."""
        while isinstance(event := self.events.get(timeout=TIMEOUT), Heard):
            pass
        return event

    def expect(self, *events: str) -> None:
        assert [self.next() for _ in events] == list(events)

    def expect_nothing_more(self) -> None:
        """Whatever was done before is handled when the tick of a later file arrives."""
        self.ticks += 1
        (self.directory / "zz-tick.yaml").write_text(NODE % self.ticks)
        self.expect(f"tick {self.ticks}")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "etc" / "manifests"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def make(directory: Path) -> Iterator[Callable[..., Running]]:
    made: list[Running] = []

    def build(path: Path = directory, **options: object) -> Running:
        made.append(Running(path, **options))  # type: ignore[arg-type]
        made[-1].start()
        return made[-1]

    yield build
    for running in made:
        running.stop()


@pytest.fixture
def running(directory: Path, make: Callable[..., Running]) -> Running:
    """A source that has listed a directory in which `a.yaml` holds Pod `a`."""
    (directory / "a.yaml").write_text(pod("a"))
    source = make()
    source.expect("started start", "+ a x", "ended")
    return source


def test_an_empty_directory_is_a_listing_without_objects(make: Callable[..., Running]) -> None:
    make().expect("started start", "ended")


def test_a_file_that_is_written_and_closed_counts(running: Running) -> None:
    (running.directory / "b.yml").write_text(pod("b"))
    running.expect("+ b x")
    (running.directory / "b.yml").write_text(pod("b", "y") + pod("c"))
    running.expect("+ b y", "+ c x")


def test_a_file_counts_once_it_is_closed_not_before(running: Running) -> None:
    with (running.directory / "b.yaml").open("w") as file:
        file.write(pod("b"))
        file.flush()
        running.expect_nothing_more()
    running.expect("+ b x")


def test_a_file_that_is_being_written_is_not_read_by_a_new_listing(running: Running) -> None:
    with (running.directory / "a.yaml").open("w") as file:
        running.expect_nothing_more()
        running.source.relist()
        running.expect("started requested", "+ a x", "tick 1", "ended")
        file.write(pod("a", "y"))
    running.expect("+ a y")


def test_an_atomic_replace_is_one_change(running: Running) -> None:
    new = running.directory / ".a.yaml.tmp"
    new.write_text(pod("a", "y"))
    new.rename(running.directory / "a.yaml")
    running.expect("+ a y")
    running.expect_nothing_more()


def test_an_unchanged_object_is_not_delivered_again(running: Running) -> None:
    (running.directory / "a.yaml").write_text("# touched\n" + pod("a"))
    running.expect_nothing_more()


def test_a_document_that_is_removed_removes_its_object(running: Running) -> None:
    (running.directory / "a.yaml").write_text(pod("a") + pod("b"))
    running.expect("+ b x")
    (running.directory / "a.yaml").write_text(pod("b"))
    running.expect("- a")


def test_a_file_that_is_removed_removes_its_objects(running: Running) -> None:
    (running.directory / "a.yaml").unlink()
    running.expect("- a")


def test_a_file_renamed_away_goes_and_comes_back(running: Running) -> None:
    (running.directory / "a.yaml").rename(running.directory / "a.off")
    running.expect("- a")
    (running.directory / "a.off").rename(running.directory / "a.yaml")
    running.expect("+ a x")


@pytest.mark.parametrize("name", [".b.yaml", "b.txt", "b.yaml~", "b.yaml.swp"])
def test_other_files_are_not_read(running: Running, name: str) -> None:
    (running.directory / name).write_text(pod("b"))
    running.expect_nothing_more()


def test_a_file_that_does_not_parse_keeps_its_last_good_content_and_says_so_once(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        (running.directory / "a.yaml").write_text("kind: Pod\nmetadata: [\n")
        running.expect_nothing_more()
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning.startswith(f"{running.directory}/a.yaml: line 3: does not parse")
    assert warning.endswith("its last good content stays")
    (running.directory / "a.yaml").write_text(pod("a", "y"))
    running.expect("+ a y")


ODD = {
    "Pod": ("metadata: {name: b}, spec: {nodeName: here}, status: {podIP: %s}", "10.1.0.5", "10.1.0.x"),
    "Node": ("metadata: {name: here, labels: {tick: %s}}", "a", "[]"),
    "BalancingPolicy": ("metadata: {name: %s}, spec: {}", "b", "3"),
    "LocalRedirectPolicy": ("metadata: {name: %s}, spec: {}", "b", "3"),
}
"""Kind -> an object of it with a gap, what makes it good there, and what makes it impossible to understand."""


@pytest.mark.parametrize("kind", ODD)
def test_p5_an_object_that_can_no_longer_be_understood_counts_as_deleted_and_is_reported_once(
    kind: str, running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    text, good, bad = ODD[kind]
    version = "v1" if kind in ("Pod", "Node") else "balancing.elf.io/v1beta1"
    document = f"{{apiVersion: {version}, kind: {kind}, {text}}}\n"
    file = running.directory / "b.yaml"
    file.write_text(document % good)
    there = running.next()
    caplog.clear()
    file.write_text(document % bad)
    assert running.next().startswith("- ")
    file.write_text(document % bad + pod("c"))
    running.expect("+ c x")
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 1 and warnings[0].startswith(f"{file}: {kind}/"), warnings
    file.write_text(document % good)
    assert {running.next(), running.next()} == {there, "- c"}


def test_a_service_that_can_no_longer_be_understood_has_no_address_and_may_be_deleted(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    file = running.directory / "b.yaml"
    for ip in ("10.0.0.1", "10.0.0.x"):
        file.write_text(f"{{apiVersion: v1, kind: Service, metadata: {{name: s}}, spec: {{clusterIP: {ip}}}}}")
        event = running.next_event()
        assert isinstance(event, Upserted) and isinstance(event.object, Service)
        assert bool(event.object.cluster_ips) is not bool(event.object.faults)
    assert "Service/default/s: spec.clusterIP: '10.0.0.x' is wrong" in caplog.text
    file.unlink()
    running.expect("- s")


def test_only_the_source_that_reports_files_reports_a_file(
    directory: Path, make: Callable[..., Running], caplog: pytest.LogCaptureFixture
) -> None:
    (directory / "bad.yaml").write_text("[")
    (directory / "text.yaml").write_text("text")
    (directory / "pod.yaml").write_text("{apiVersion: v1, kind: Pod, metadata: {name: BAD}, spec: {nodeName: here}}")
    make(reports_files=False).expect("started start", "ended")
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "pod.yaml: Pod/BAD: metadata.name" in warning


ONLY_PODS = frozenset({"Pod"})
SERVICE = "{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {}}\n"


@contextmanager
def agents_sources(directory: Path) -> Iterator[None]:
    """The three sources of an agent, when each has listed the directory."""
    settings = Settings(source=SourceSettings(kind="directory", directory=directory), node_name="here")
    made = agent_sources(settings)
    events: list[queue.Queue[SourceEvent]] = [queue.Queue() for _ in range(3)]
    sources = [
        make(each.put) for make, each in zip((made.policies, made.services, made.endpoints), events, strict=True)
    ]
    threads = [threading.Thread(target=each.run, daemon=True) for each in sources]
    for thread in threads:
        thread.start()
    for each in events:
        while not isinstance(each.get(timeout=TIMEOUT), ListingEnded):
            pass
    yield
    for source, thread in zip(sources, threads, strict=True):
        source.stop()
        thread.join(TIMEOUT)


def test_a_source_that_reports_no_files_takes_its_kinds_from_whatever_file_has_them(
    directory: Path, make: Callable[..., Running]
) -> None:
    (directory / "a.yaml").write_text(SERVICE)
    (directory / "b.json").write_text(
        '{"apiVersion": "v1", "kind": "\\u0050od", "metadata": {"name": "b"}, "spec": {"nodeName": "here"}}'
    )
    (directory / "c.yaml").write_text(
        "{apiVersion: v1, kind: PodList, items: [{metadata: {name: c}, spec: {nodeName: here}}]}"
    )
    running = make(reports_files=False, kinds=ONLY_PODS)
    running.expect("started start", "+ b", "+ c", "ended")
    (directory / "a.yaml").write_text(SERVICE + pod("a"))
    running.expect("+ a x")
    (directory / "a.yaml").write_text(SERVICE)
    running.expect("- a")


def test_a_source_that_reports_no_files_keeps_the_last_good_content_too(
    directory: Path, make: Callable[..., Running]
) -> None:
    (directory / "a.yaml").write_text(pod("a"))
    running = make(reports_files=False, kinds=ONLY_PODS)
    running.expect("started start", "+ a x", "ended")
    (directory / "a.yaml").write_text("[")
    (directory / "b.yaml").write_text(pod("b"))
    running.expect("+ b x")


REPORTED_BY_ONE = {
    "a policy": "kind: LocalRedirectPolicy\n[",
    "a Service": "kind: Service\n[",
    "a Pod": "kind: Pod\nspec: {enableServiceLinks: true}\n[",
    "a Node": "kind: Node\n[",
    "nothing of ours": "[",
    "all of them": "kind: Node\nkind: Service\nkind: BalancingPolicy\n[",
    "a kind with escapes": 'kind: "\\u0050od"\n[',
    "no object": "text",
}


@pytest.mark.parametrize("content", REPORTED_BY_ONE.values(), ids=REPORTED_BY_ONE)
def test_of_the_agents_three_sources_one_reports_a_file(
    directory: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    (directory / "bad.yaml").write_text(content)
    with agents_sources(directory):
        pass
    assert len([record for record in caplog.records if "bad.yaml: " in record.getMessage()]) == 1


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("{apiVersion: balancing.elf.io/v1beta1, kind: BalancingPolicy, metadata: {name: a}}", id="policy"),
        pytest.param(SERVICE, id="service"),
        pytest.param(pod("a") + "  enableServiceLinks: true\n", id="pod"),
        pytest.param("{apiVersion: v1, kind: ConfigMap}", id="another"),
    ],
)
def test_of_the_agents_three_sources_one_parses_a_file(
    directory: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    parsed: list[bytes] = []

    def parse(data: bytes, **options: Any) -> Manifest:
        parsed.append(data)
        return read_manifest(data, **options)

    monkeypatch.setattr(manifest_files, "read_manifest", parse)
    (directory / "a.yaml").write_text(content)
    with agents_sources(directory):
        pass
    assert parsed == [content.encode()]


def test_of_an_object_in_two_files_the_first_file_counts_and_a_warning_names_both(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    (running.directory / "b.yaml").write_text(pod("a", "y"))
    running.expect_nothing_more()
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "Pod/default/a is in both a.yaml and b.yaml" in warning
    (running.directory / "a.yaml").unlink()
    running.expect("+ a y")


def test_something_that_is_not_a_regular_file_is_named_and_never_blocks(
    directory: Path, make: Callable[..., Running], caplog: pytest.LogCaptureFixture
) -> None:
    os.mkfifo(directory / "fifo.yaml")
    (directory / "dir.yaml").mkdir()
    make().expect("started start", "ended")
    assert (
        sorted(record.getMessage().split(": ", 1)[1] for record in caplog.records)
        == ["is not a regular file; it has no good content yet"] * 2
    )


def test_a_config_map_swap_changes_the_files_behind_the_links(directory: Path, make: Callable[..., Running]) -> None:
    for version in ("x", "y"):
        (directory / f"..{version}").mkdir()
        (directory / f"..{version}" / "a.yaml").write_text(pod("a", version))
    (directory / "..data").symlink_to("..x")
    (directory / "a.yaml").symlink_to("..data/a.yaml")
    source = make()
    source.expect("started start", "+ a x", "ended")
    (directory / "..data_tmp").symlink_to("..y")
    (directory / "..data_tmp").rename(directory / "..data")
    source.expect("+ a y")


def test_a_link_that_is_created_counts_at_once(running: Running, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text(pod("b"))
    (running.directory / "b.yaml").symlink_to(tmp_path / "elsewhere")
    running.expect("+ b x")


def write(path: Path, version: str) -> None:
    path.write_text(pod("b", f"v{version}"))


def replace(path: Path, version: str) -> None:
    new = path.with_name("new")
    write(new, version)
    new.rename(path)


@pytest.mark.parametrize("change", [write, replace])
def test_the_target_of_a_link_may_change(
    change: Callable[[Path, str], None], directory: Path, tmp_path: Path, make: Callable[..., Running]
) -> None:
    target = tmp_path / "elsewhere" / "target"
    target.parent.mkdir()
    write(target, "1")
    (directory / "b.yaml").symlink_to(target)
    source = make()
    source.expect("started start", "+ b v1", "ended")
    for version in ("2", "3"):
        change(target, version)
        source.expect(f"+ b v{version}")


def test_a_link_that_is_created_later_is_followed_too(running: Running, tmp_path: Path) -> None:
    write(tmp_path / "target", "1")
    (running.directory / "b.yaml").symlink_to(tmp_path / "target")
    running.expect("+ b v1")
    write(tmp_path / "target", "2")
    running.expect("+ b v2")
    (running.directory / "b.yaml").unlink()
    running.expect("- b")
    write(tmp_path / "target", "3")
    running.expect_nothing_more()


def test_the_target_of_a_link_may_go_and_come_back(running: Running, tmp_path: Path) -> None:
    target = tmp_path / "some" / "where" / "target"
    (running.directory / "b.yaml").symlink_to(target)
    for version in ("1", "2"):
        target.parent.mkdir(parents=True)
        write(target, version)
        running.expect(f"+ b v{version}")
        shutil.rmtree(tmp_path / "some")
        running.expect("- b")


def test_the_target_of_a_link_counts_once_it_is_closed_not_before(running: Running, tmp_path: Path) -> None:
    (running.directory / "b.yaml").symlink_to(tmp_path / "target")
    running.expect_nothing_more()
    with (tmp_path / "target").open("w") as file:
        file.write(pod("b", "v1"))
        file.flush()
        running.expect_nothing_more()
    running.expect("+ b v1")
    with (tmp_path / "target").open("w") as file:
        file.write("# ")
        file.flush()
        running.expect_nothing_more()
        file.write("\n" + pod("b", "v2"))
    running.expect("+ b v2")


def test_a_link_through_other_links_and_directories_is_followed_at_each_step(running: Running, tmp_path: Path) -> None:
    for version in ("1", "2"):
        (tmp_path / version / "sub").mkdir(parents=True)
        write(tmp_path / version / "sub" / "file", version)
    (tmp_path / "current").symlink_to("1")
    (tmp_path / "inner").symlink_to(tmp_path / "current" / "sub" / ".." / "sub" / "file")
    (running.directory / "b.yaml").symlink_to("../../inner")
    running.expect("+ b v1")
    (tmp_path / "next").symlink_to("2")
    (tmp_path / "next").rename(tmp_path / "current")
    running.expect("+ b v2")
    write(tmp_path / "1" / "sub" / "file", "3")
    running.expect_nothing_more()
    (tmp_path / "2").rename(tmp_path / "2-off")
    running.expect("- b")
    (tmp_path / "2-off").rename(tmp_path / "2")
    running.expect("+ b v2")
    (tmp_path / "inner").unlink()
    running.expect("- b")


def test_links_in_a_circle_are_a_warning_until_they_lead_somewhere(
    running: Running, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    (running.directory / "b.yaml").symlink_to(tmp_path / "one")
    running.expect_nothing_more()
    assert "b.yaml: Too many levels of symbolic links" in caplog.text
    (tmp_path / "two").unlink()
    write(tmp_path / "two", "1")
    running.expect("+ b v1")


def test_several_links_to_one_target_follow_it_each(running: Running, tmp_path: Path) -> None:
    write(tmp_path / "target", "1")
    (running.directory / "b.yaml").symlink_to(tmp_path / "target")
    running.expect("+ b v1")
    (running.directory / "c.yaml").symlink_to("b.yaml")
    (running.directory / "b.yaml").unlink()
    running.expect("- b")
    (running.directory / "b.yaml").symlink_to(tmp_path / "target")
    running.expect("+ b v1")
    write(tmp_path / "target", "2")
    running.expect("+ b v2")


def test_a_file_that_has_another_name_elsewhere_may_be_written_there(running: Running, tmp_path: Path) -> None:
    write(tmp_path / "other-name", "1")
    (running.directory / "b.yaml").hardlink_to(tmp_path / "other-name")
    running.expect("+ b v1")
    write(tmp_path / "other-name", "2")
    running.expect("+ b v2")


@pytest.fixture
def warnings() -> Iterator[queue.Queue[logging.LogRecord]]:
    """What the source logs, to wait for."""
    records: queue.Queue[logging.LogRecord] = queue.Queue()
    handler = logging.handlers.QueueHandler(records)
    logger = logging.getLogger("k8s.sources.directory")
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)


@pytest.mark.parametrize("depth", [0, 1])
def test_a_directory_that_is_removed_removes_its_objects_and_may_come_back(running: Running, depth: int) -> None:
    shutil.rmtree([running.directory, *running.directory.parents][depth])
    running.expect("- a")
    running.directory.mkdir(parents=True)
    (running.directory / "a.yaml").write_text(pod("a", "y"))
    running.expect("+ a y")


def test_until_its_directory_exists_a_source_is_not_synced(
    tmp_path: Path, make: Callable[..., Running], warnings: queue.Queue[logging.LogRecord]
) -> None:
    directory = tmp_path / "not" / "yet" / "there"
    source = make(directory)
    warning = warnings.get(timeout=TIMEOUT).getMessage()
    assert warning.startswith(f"{directory} does not exist; nothing is redirected until it does")
    source.source.relist()
    (tmp_path / "not").mkdir()
    assert source.events.empty()
    staged = tmp_path / "staged"
    staged.mkdir()
    (staged / "a.yaml").write_text(pod("a"))
    (tmp_path / "not" / "yet").mkdir()
    staged.rename(directory)
    source.expect("started start", "+ a x", "ended")
    assert warnings.empty()


def test_a_directory_that_is_a_link_may_be_swapped(tmp_path: Path, make: Callable[..., Running]) -> None:
    for version in ("x", "y"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "a.yaml").write_text(pod("a", version))
    (tmp_path / "current").symlink_to("x")
    source = make(tmp_path / "current")
    source.expect("started start", "+ a x", "ended")
    (tmp_path / "next").symlink_to("y")
    (tmp_path / "next").rename(tmp_path / "current")
    source.expect("+ a y")
    (tmp_path / "y" / "a.yaml").write_text(pod("a", "z"))
    source.expect("+ a z")


def test_each_new_listing_delivers_everything(running: Running) -> None:
    for _ in range(2):
        running.source.relist()
        running.expect("started requested", "+ a x", "ended")


def test_an_overflow_of_inotify_leads_to_a_new_listing(
    directory: Path, make: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Written before the source starts: a file that is still being written would only be delivered when it is closed.
    (directory / ".b.yaml").write_text(pod("b"))
    running = make()
    running.expect("started start", "ended")
    read = INotify.read

    def overflowing(self: INotify, timeout: int | None = None) -> list[Event]:
        monkeypatch.setattr(INotify, "read", read)
        read(self, timeout=timeout)
        return [Event(-1, flags.Q_OVERFLOW, 0, "")]

    monkeypatch.setattr(INotify, "read", overflowing)
    (directory / ".b.yaml").rename(directory / "b.yaml")
    running.expect("started overflow", "+ b x", "ended")


def test_a_source_stops_at_once_and_stopping_it_again_is_harmless(running: Running) -> None:
    running.stop()
    running.stop()
    running.source.relist()


def test_a_source_that_was_stopped_before_it_ran_ends_at_once(directory: Path) -> None:
    source = Running(directory)
    source.source.stop()
    source.start()
    source.stop()


def test_bursts_of_changes_end_in_the_last_state(running: Running) -> None:
    for number in range(50):
        (running.directory / "a.yaml").write_text(pod("a", f"v{number}"))
    while running.next() != "+ a v49":
        pass


def test_warnings_of_files_that_are_gone_are_forgotten(running: Running) -> None:
    """That includes files that never had good content and were removed unnoticed, once all files are read again."""
    for number in range(20):
        (running.directory / f"broken-{number}.yaml").write_text("a: [")
    running.expect_nothing_more()
    assert len(running.source._files._warnings) == 20
    for number in range(10):
        (running.directory / f"broken-{number}.yaml").unlink()
    shutil.rmtree(running.directory)
    assert {running.next(), running.next()} == {"- a", "- here"}
    running.directory.mkdir()
    running.expect_nothing_more()
    assert running.source._files._warnings == {}
