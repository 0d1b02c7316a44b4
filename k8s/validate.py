"""`run.py validate`: policy manifests checked without a cluster, one line for each fault.

Beside a policy's own faults: what policies would contend for (P8), and unknown fields, of which the agent only warns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from config.settings import RedirectSettings
from k8s.directory import read_file
from k8s.manifests import POLICY_KINDS, FileFault, identity, identity_text, read_documents
from k8s.objects import AddressFrontend, Policy, PolicySpec
from k8s.policy import parse_policy


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    place: str
    """FILE: KIND/NAME."""
    policy: Policy


def validate(paths: Sequence[Path], redirect: RedirectSettings) -> list[str]:
    """One line for each fault; empty when there is none. Objects of other kinds are left alone."""
    lines: list[str] = []
    found: list[_Found] = []
    for path in paths:
        try:
            documents, faults = read_documents(read_file(path), is_json=path.suffix == ".json")
        except (FileFault, OSError) as error:
            lines.append(f"{path}: {error.strerror if isinstance(error, OSError) else error}")
            continue
        lines.extend(f"{path}: {fault}" for fault in faults)
        for document in documents:
            if document.kind in POLICY_KINDS:
                policy = parse_policy(document.raw, redirect)
                found.append(_Found(place=f"{path}: {_label(policy)}", policy=policy))
    for entry in found:
        lines.extend(f"{entry.place}: {fault}" for fault in entry.policy.faults)
        lines.extend(f"{entry.place}: {field}: is no field that we know" for field in entry.policy.unknown_fields)
    return [*lines, *_repeated(found), *_contended(found)]


def _label(policy: Policy) -> str:
    return identity_text(identity(policy)) if policy.key.name else f"{policy.key.kind}/(no name)"


def _repeated(found: list[_Found]) -> Iterator[str]:
    first: dict[object, _Found] = {}
    for entry in found:
        if entry.policy.key.name and first.setdefault(entry.policy.key, entry) is not entry:
            yield f"{entry.place}: metadata.name: the same policy is there already in {first[entry.policy.key].place}"


def _contended(found: list[_Found]) -> Iterator[str]:
    """Rule P8, oldest first: only a policy in force keeps others out."""
    taken: dict[str, _Found] = {}
    seen: set[object] = set()
    for entry in sorted(found, key=lambda entry: (entry.policy.created, entry.policy.key.name, entry.policy.key.kind)):
        policy = entry.policy
        if policy.spec is None or not policy.spec.enabled or policy.key in seen:
            continue
        seen.add(policy.key)
        claims = list(_claims(policy, policy.spec))
        lost = [(field, what, taken[what]) for field, what in claims if what in taken]
        for field, what, winner in lost:
            yield (
                f"{entry.place}: {field}: {what} is claimed by {winner.place} too, which wins "
                "(older creation, then name)"
            )
        if not lost:
            taken.update((what, entry) for _, what in claims)


def _claims(policy: Policy, spec: PolicySpec) -> Iterator[tuple[str, str]]:
    """Field and what it claims."""
    if policy.service_id_explicit:
        yield "metadata.annotations.balancing.elf.io/serviceId", f"serviceId {policy.service_id}"
    frontend = spec.frontend
    if not isinstance(frontend, AddressFrontend):
        yield "spec.frontend.serviceMatcher", f"Service {frontend.service}"
        return
    for index, port in enumerate(frontend.to_ports):
        where = f"[{frontend.ip}]" if frontend.ip.version == 6 else str(frontend.ip)
        yield f"spec.frontend.addressMatcher.toPorts[{index}]", f"{where}:{port.port}/{port.protocol}"
