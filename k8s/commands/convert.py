"""`run.py convert`: manifests of Cilium's policies and of NodeLocal DNSCache become ours. Remarks say what differs.

docs/migration.md says what to do with the result.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from config.input.parsing import FileFault
from config.settings import RedirectSettings
from k8s.commands import convert_cilium
from k8s.commands.conversion import Conversion, given_name
from k8s.commands.convert_cilium import convert_cilium_policy
from k8s.commands.convert_node_cache import convert_node_cache, is_node_cache
from k8s.objects.documents import Document, read_documents
from k8s.objects.identity import POLICY_KINDS
from k8s.objects.metadata import DEFAULT_NAMESPACE, key_name
from k8s.objects.policy import parse_policy
from k8s.objects.raw import raw_metadata
from k8s.sources.manifest_files import is_json, read_file, why_unreadable

_WIDTH = 118
_WANTED = f"a {convert_cilium.KIND}, or a DaemonSet of NodeLocal DNSCache (a container with -localip)"


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines, such as a Corefile, line by line."""


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    manifests: str
    """YAML, with the remarks as comments; "" when there are faults."""
    faults: tuple[str, ...]
    """One line each."""


def convert(paths: Sequence[Path], redirect: RedirectSettings) -> Converted:
    """The objects of all files are converted together, since a DaemonSet and its ConfigMap may be in two."""
    documents: list[Document] = []
    faults: list[str] = []
    for path in paths:
        try:
            found, wrong = read_documents(read_file(path), is_json=is_json(path.name))
        except (FileFault, OSError) as error:
            faults.append(f"{path}: {why_unreadable(error)}")
            continue
        documents.extend(found)
        faults.extend(f"{path}: {each}" for each in wrong.all_faults())
    conversions = list(convert_all(documents, redirect))
    faults += [f"{each.given}: {fault}" for each in conversions for fault in each.faults]
    if not conversions and not faults:
        names = ", ".join(map(str, paths))
        faults.append(f"{names}: there is nothing to convert; it must have {_WANTED}")
    if faults:
        return Converted(manifests="", faults=tuple(faults))
    converted = {each.given for each in conversions}
    others = [each for each in documents if given_name(each) not in converted]
    return Converted(manifests="".join((*map(_text, conversions), _about_others(others))), faults=())


def convert_all(documents: Sequence[Document], redirect: RedirectSettings) -> Iterator[Conversion]:
    """One for each object that can be converted."""
    policies = [each for each in documents if each.kind == convert_cilium.KIND]
    names = Counter(_metadata(each, "name") for each in policies)
    for each in policies:
        name = _metadata(each, "name")
        # Cilium's policies have a namespace and ours have none, so two of them may have the same name.
        unique = name if names[name] == 1 else f"{_metadata(each, 'namespace') or DEFAULT_NAMESPACE}-{name}"
        yield _checked(convert_cilium_policy(each, unique, redirect), redirect)
    for each in documents:
        if is_node_cache(each):
            yield _checked(convert_node_cache(each, [other for other in documents if other is not each]), redirect)


def _checked(conversion: Conversion, redirect: RedirectSettings) -> Conversion:
    """With the faults that the agent would find in the new policies, such as an address that its configuration does not
    allow."""
    policies = [parse_policy(each, redirect) for each in conversion.objects if each["kind"] in POLICY_KINDS]
    faults = tuple(f"the new policy {each.key.name} has a fault: {fault}" for each in policies for fault in each.faults)
    return Conversion(given=conversion.given, faults=faults) if faults else conversion


def _metadata(document: Document, name: str) -> str:
    return key_name(raw_metadata(document.raw).get(name))


def _text(conversion: Conversion) -> str:
    comments = "".join(map(_comment, (f"From {conversion.given}.", *(f"- {each}." for each in conversion.remarks))))
    dumped = [yaml.dump(each, Dumper=_Dumper, sort_keys=False, width=_WIDTH) for each in conversion.objects]
    return "---\n" + comments + "---\n".join(dumped)


def _about_others(documents: Sequence[Document]) -> str:
    if not documents:
        return ""
    names = ", ".join(given_name(each) for each in documents)
    return "---\n" + _comment(
        f"Not converted: {names}. The manifests above need only those of them that a remark mentions."
    )


def _comment(text: str) -> str:
    inner = "  " if text.startswith("- ") else ""
    lines = textwrap.wrap(text, _WIDTH, subsequent_indent=inner, break_long_words=False, break_on_hyphens=False)
    return "".join(f"# {line}\n" for line in lines)
