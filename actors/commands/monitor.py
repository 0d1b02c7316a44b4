"""`run.py monitor`: prints what is decided about calls, one line for each as it happens."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping

from bpf.cgroups.hierarchy import find_cgroup
from bpf.explaining.call import ClientName
from bpf.monitoring.clients import Clients
from bpf.monitoring.filters import is_chosen
from bpf.monitoring.follow import follow
from bpf.monitoring.printing import as_text, document, lost_as_text
from config.domain.ids import NamespacedName
from config.settings import Settings
from k8s.commands.pods import SourceUnreadable, pod_names


def lines(
    settings: Settings,
    wait: Callable[[float], bool],
    *,
    policy: str | None,
    client: ClientName | None,
    count: int | None,
    as_json: bool,
) -> Iterator[str]:
    """Yields a line for each decision about `policy` and `client` (None: about all), and one where decisions were lost.
    Ends after `count` decisions, or when `wait` returns True. Raises DatapathError when nothing is installed."""
    mount = find_cgroup("auto")
    clients = Clients(mount, lambda: _pods(settings))
    left = count
    for each in follow(settings.datapath.bpffs, clients, wait):
        if isinstance(each, int):
            yield json.dumps({"lost": each}) if as_json else lost_as_text(each)
        elif is_chosen(each, policy, client, mount):
            yield json.dumps(document(each)) if as_json else as_text(each)
            if left is not None:
                left -= 1
                if not left:
                    return


def _pods(settings: Settings) -> Mapping[str, NamespacedName]:
    """Returns nothing while the source cannot be read. The lines then lack the caller's name, and nothing else."""
    try:
        return pod_names(settings)
    except SourceUnreadable:
        return {}
