"""The first step of `helm uninstall` (k8s/chart/templates/uninstall.yaml): replaces every agent by `run.py detach`.

It patches the DaemonSet with k8s/detach.yaml, and waits until every node has detached. It does not wait for nodes whose
kubelet does not report, since nothing can be detached there, but names them. Helm prints what is logged here.

    python -m k8s.commands.uninstall NAMESPACE DAEMONSET SECONDS
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote

import yaml

from k8s.api.client import Api
from k8s.api.errors import ApiError, SourceConfigError, Unreachable
from k8s.commands.detach_progress import Remaining, kubelet_is_silent, remaining, unfinished
from k8s.objects.raw import Raw

_log = logging.getLogger(__name__)
PATCH: Raw = yaml.safe_load((Path(__file__).parents[1] / "detach.yaml").read_text())
DETACH: list[str] = PATCH["spec"]["template"]["spec"]["containers"][0]["command"]
"""The command of a Pod that detaches."""
LOOK_SECONDS = 10.0
"""Pods and nodes are read only after this time without progress, since in a large cluster they are many."""
_STRATEGIC = "application/strategic-merge-patch+json"
_SERVER_TROUBLE = HTTPStatus.TOO_MANY_REQUESTS
"""From this HTTP status on, the server is the problem: too many requests, or a failure of its own."""


class Uninstall:
    """Detaches the nodes of one DaemonSet. Raises ApiError if the API server refuses for good (a missing right, no
    DaemonSet)."""

    def __init__(self, api: Api, namespace: str, name: str) -> None:
        self._api = api
        self._daemon_set = f"/apis/apps/v1/namespaces/{namespace}/daemonsets/{name}"
        self._pods = f"/api/v1/namespaces/{namespace}/pods"
        self._patched = False

    def detach(self, seconds: float, clock: Callable[[], float], sleep: Callable[[float], None]) -> Remaining:
        """Returns when no node is left to wait for, or when `seconds` are over, with the nodes that remain."""
        deadline, logged, since = clock() + seconds, "", clock()
        while now := self._progress():
            if now != logged:
                _log.info("%s", now)
                logged, since = now, clock()
            is_over = clock() > deadline
            if is_over or clock() - since > LOOK_SECONDS:
                found = self._look(now)
                if is_over or not found.waiting:
                    return found
                since = clock()
            sleep(1)
        return Remaining()

    def _progress(self) -> str:
        """In words; "" when everything is done."""
        try:
            if not self._patched:
                self._api.send("PATCH", self._daemon_set, PATCH, _STRATEGIC)
                self._patched = True
            return unfinished(self._api.get(self._daemon_set, {}))
        except (ApiError, Unreachable) as error:
            return _trouble(error)

    def _look(self, progress: str) -> Remaining:
        try:
            daemon_set = self._api.get(self._daemon_set, {})
            labels = daemon_set["spec"]["selector"]["matchLabels"]
            selector = ",".join(f"{key}={value}" for key, value in labels.items())
            pods = self._api.get(self._pods, {"labelSelector": selector})["items"]
            return remaining(daemon_set, pods, DETACH, self._does_not_report)
        except (ApiError, Unreachable) as error:
            return Remaining(waiting=(("(unknown)", f"{progress}; {_trouble(error)}"),))

    def _does_not_report(self, node: str) -> bool:
        try:
            return kubelet_is_silent(self._api.get(f"/api/v1/nodes/{quote(node, safe='')}", {}))
        except ApiError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            return False


def _trouble(error: ApiError | Unreachable) -> str:
    """The text of an error that will probably pass. Raises the error if the server refuses for good."""
    if isinstance(error, ApiError) and error.status < _SERVER_TROUBLE:
        raise error
    return str(error)


def uninstall(
    api: Api, namespace: str, name: str, seconds: float, clock: Callable[[], float], sleep: Callable[[float], None]
) -> int:
    """Detaches, and logs what happens. Returns the exit code."""
    try:
        found = Uninstall(api, namespace, name).detach(seconds, clock, sleep)
    except ApiError as error:
        if error.status == HTTPStatus.NOT_FOUND:
            _log.info("there is no DaemonSet %s/%s", namespace, name)
            return 0
        _log.error("%s", error)
        return 1
    for node in found.not_reporting:
        _log.warning(
            "node %s: its kubelet does not report, so nothing can be detached there. The programs in its kernel "
            "redirect nothing once its agent has been gone for datapath.lease_seconds, and go when the node restarts",
            node,
        )
    for node, obstacle in found.waiting:
        _log.error("node %s: %s", node, obstacle)
    if found.waiting:
        _log.error(
            "nothing is deleted: these nodes did not detach within %g s. Repair them and run `helm uninstall` again, "
            "or uninstall without them by `helm uninstall --no-hooks`",
            seconds,
        )
        return 1
    _log.info("detached on all %snodes", "other " if found.not_reporting else "")
    return 0


def main(arguments: Sequence[str]) -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    namespace, name, seconds = arguments
    try:
        api = Api("")
    except SourceConfigError as error:
        _log.error("%s", error)
        return 1
    return uninstall(api, namespace, name, float(seconds), time.monotonic, time.sleep)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
