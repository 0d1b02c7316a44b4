"""k8s/install.yaml, rendered from the chart; and the chart's copy of the CRD, since Helm reads no file outside of it.

    python -m tests.cluster.install_yaml

writes both (`make install-yaml`). tests/cluster/test_chart.py fails when they are not what this would write.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.cluster import binaries
from tests.cluster.binaries import ROOT

CHART = ROOT / "k8s" / "chart"
INSTALL = ROOT / "k8s" / "install.yaml"
CRD = ROOT / "k8s" / "crd.yaml"
CRD_COPY = CHART / "files" / "crd.yaml"
NAMESPACE = "elf"
_HEAD = """\
# LocalRedirect for a cluster. This file is rendered from k8s/chart: change the chart, then run `make install-yaml`.
# No registry has its image. Put the name of yours into k8s/kustomization.yaml, and apply that in place of this file.
#     kubectl apply -k k8s
# To uninstall, first remove the programs from the kernels of all nodes, then everything but the CRD (without it, all
# policies would be gone).
#     kubectl -n elf patch daemonset balancing-agent --patch-file k8s/detach.yaml
#     kubectl -n elf rollout status daemonset balancing-agent
#     kubectl delete -k k8s -l app.kubernetes.io/name=localredirect
"""


def template(*arguments: str, chart: Path = CHART) -> subprocess.CompletedProcess[str]:
    """Runs `helm template`. The result has its exit code and both streams."""
    version = f"--kube-version={binaries.KUBERNETES}"
    named = ("template", "localredirect", str(chart), f"--namespace={NAMESPACE}", version)
    return subprocess.run([str(binaries.helm()), *named, *arguments], capture_output=True, text=True, check=False)


def install_yaml() -> str:
    done = template("--no-hooks", "--set=namespace.create=true")
    if done.returncode:
        raise RuntimeError(done.stderr)
    return _HEAD + done.stdout


if __name__ == "__main__":
    CRD_COPY.write_text(CRD.read_text())
    INSTALL.write_text(install_yaml())
