"""`run.py validate`: checks policy manifests without a cluster, and prints one line for each fault.

Besides a policy's own faults it finds policies that would conflict (P8), unknown fields (an agent only warns of these),
what the API server refuses although an agent would accept it, and files without any policy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from config.domain.addresses import Frontend
from config.domain.ids import PolicyKey, PolicyKind
from config.input.faults import Fault, Report, shown
from config.input.parsing import FileFault
from config.settings import RedirectSettings
from k8s.objects.api_rules import api_faults
from k8s.objects.claims import Claim, Claimant, age, claims_of, decide_losses
from k8s.objects.documents import Document, read_documents
from k8s.objects.identity import POLICY_KINDS, identity, identity_text
from k8s.objects.metadata import full_name
from k8s.objects.model import AddressFrontend, Policy
from k8s.objects.policy import API_VERSION, read_policy
from k8s.objects.policy_id import SERVICE_ID_ANNOTATION
from k8s.sources.manifest_files import is_json, read_file, why_unreadable

GROUP, _, _ = API_VERSION.partition("/")
_NEAR = 0.9
"""From this similarity (0 to 1) on, a word counts as a misspelling of another: one or two letters differ."""
_IN_QUOTES = "; this is how kubectl reads it without quotes, so put it in quotes"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    place: str
    """FILE: KIND/NAME."""
    policy: Policy
    faults: tuple[str, ...]


def validate(paths: Sequence[Path], redirect: RedirectSettings) -> list[str]:
    """One line for each fault; empty when there is none. Objects of other kinds are not checked."""
    lines: list[str] = []
    found: list[_Found] = []
    for path in paths:
        try:
            data = read_file(path)
            documents, report = read_documents(data, is_json=is_json(path.name))
            as_kubectl, _ = read_documents(data, is_json=is_json(path.name), as_kubectl=True)
        except (FileFault, OSError) as error:
            lines.append(f"{path}: {why_unreadable(error)}")
            continue
        lines.extend(f"{path}: {fault}" for fault in report.all_faults())
        if not documents and not report.faults:
            lines.append(f"{path}: is empty; it must hold at least one {PolicyKind.LOCAL_REDIRECT}")
        lines.extend(f"{path}: {fault}" for document in documents if (fault := _misspelt(document)))
        for document, other in zip(_policies(documents), _policies(as_kubectl), strict=True):
            own = Report()
            policy = read_policy(document.raw, redirect, own)
            all_faults = _all_faults(own, other.raw, redirect)
            found.append(_Found(place=f"{path}: {_label(policy)}", policy=policy, faults=all_faults))
    for entry in found:
        lines.extend(f"{entry.place}: {fault}" for fault in entry.faults)
        lines.extend(f"{entry.place}: {fault}" for fault in entry.policy.unknown_fields)
    if not found and not lines:
        names = ", ".join(map(str, paths))
        lines.append(f"{names}: there is no {PolicyKind.LOCAL_REDIRECT}; objects of other kinds are not checked")
    return [*lines, *_repeated(found), *_contended(found)]


def _policies(documents: list[Document]) -> list[Document]:
    return [document for document in documents if document.kind in POLICY_KINDS]


def _all_faults(own: Report, as_kubectl: Mapping[object, object], redirect: RedirectSettings) -> tuple[str, ...]:
    """The faults that an agent finds when it reads the file (`own`), and those that the API server finds when kubectl
    sends it. Each field is named once."""
    quoted = Report()
    read_policy(as_kubectl, redirect, quoted)
    of_api = api_faults(as_kubectl)
    faults = list(own.faults)
    named = {fault.path for fault in faults}
    faults.extend(Fault(path, text + _IN_QUOTES) for path, text in quoted.faults if path not in named)
    named = {fault.path for fault in faults}
    faults.extend(fault for fault in of_api.faults if fault.path not in named)
    return Report(faults=faults, dropped=max(own.dropped, quoted.dropped) + of_api.dropped).all_faults()


def _misspelt(document: Document) -> str:
    """What is wrong with an object that is not a policy, but was probably meant to be one; "" for any other object."""
    version = document.raw.get("apiVersion")
    group = version.partition("/")[0] if isinstance(version, str) else ""
    kinds = {kind.lower(): kind for kind in sorted(POLICY_KINDS)}
    near = get_close_matches(document.kind.lower(), kinds, n=1, cutoff=_NEAR)
    near_group = get_close_matches(group.lower(), [GROUP], cutoff=_NEAR)
    if document.kind in POLICY_KINDS or not (near or near_group):
        return ""
    wrong = f"apiVersion: {shown(version)} is wrong; it must be {API_VERSION}, with a kind of this group"
    if group == GROUP:
        meant = f" (did you mean {kinds[near[0]]}?)" if near else ""
        wrong = f"kind: is not a kind of {GROUP}{meant}; it must be {' or '.join(kinds.values())}"
    return f"{full_name(document.kind, document.raw)}: {wrong}"


def _label(policy: Policy) -> str:
    return identity_text(identity(policy)) if policy.key.name else f"{policy.key.kind}/(no name)"


def _repeated(found: list[_Found]) -> Iterator[str]:
    first: dict[object, _Found] = {}
    for entry in found:
        if entry.policy.key.name and first.setdefault(entry.policy.key, entry) is not entry:
            yield f"{entry.place}: metadata.name: the same policy already appears in {first[entry.policy.key].place}"


def _contended(found: list[_Found]) -> Iterator[str]:
    """Rule P8 among the policies of these files: one line for each claim that is lost."""
    entries: dict[PolicyKey, _Found] = {}
    claimants: dict[PolicyKey, Claimant] = {}
    for entry in sorted(found, key=lambda entry: age(entry.policy)):
        claims = _claims(entry.policy)
        if claims and entry.policy.key not in entries:  # `_repeated` names a second one
            entries[entry.policy.key] = entry
            claimants[entry.policy.key] = Claimant(age(entry.policy), frozenset(claims))
    for loser, losses in decide_losses(claimants).items():
        fields = _claims(entries[loser].policy)
        for loss in losses:
            yield (
                f"{entries[loser].place}: {fields[loss.claim]}: {loss.what} is also claimed by "
                f"{entries[loss.winner].place}, which wins (the older one, or the first by name)"
            )


def _claims(policy: Policy) -> Mapping[Claim, str]:
    """What a policy claims, each with its field; without its number when that is derived from the uid, since the API
    server gives the object another uid."""
    if policy.spec is None:
        return {}
    fields: dict[Claim, str] = {}
    if policy.policy_id_explicit:
        fields[policy.policy_id] = f"metadata.annotations.{SERVICE_ID_ANNOTATION}"
    frontend = policy.spec.frontend
    if isinstance(frontend, AddressFrontend):
        for index, port in enumerate(frontend.to_ports):
            claim = Frontend(frontend.ip, port.port, port.protocol)
            fields[claim] = f"spec.frontend.addressMatcher.toPorts[{index}]"
    else:
        fields[frontend.service] = "spec.frontend.serviceMatcher"
    frontends = [claim for claim in fields if isinstance(claim, Frontend)]
    return {claim: field for claim, field in fields.items() if claim in claims_of(policy, frontends)}
