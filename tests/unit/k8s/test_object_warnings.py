"""What the sources say about objects that they can't fully understand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from config.settings import RedirectSettings
from k8s.api.object_reader import ObjectReader
from k8s.api.resource import Resource
from k8s.objects.identity import raw_identity
from k8s.objects.manifests import read_manifest
from k8s.sources.resources import reducer
from tests.unit.objects import ALL_KINDS

EXAMPLE = Path(__file__).parents[3] / "k8s" / "examples" / "address-frontend.yaml"
SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "s"},
    "spec": {"clusterIP": "10.0.0.x", "clusterIPs": ["10.0.0.y"]},
}
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p"},
    "spec": {"nodeName": "n"},
    "status": {"podIP": "x"},
}
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "a Service": (SERVICE, "; the Service has no frontend until this is corrected"),
    "a Pod": (POD, "; the object counts as deleted until this is corrected"),
    "an unknown field of a policy": (
        yaml.safe_load(EXAMPLE.read_text()) | {"specs": {}},
        "specs: is unknown (did you mean spec?); ",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_api_and_a_directory_warn_alike_of_one_object(case: str, caplog: pytest.LogCaptureFixture) -> None:
    raw, says = CASES[case]
    redirect = RedirectSettings()
    data = yaml.safe_dump(raw).encode()
    manifest = read_manifest(data, is_json=False, kinds=ALL_KINDS, node_name="n", redirect=redirect)
    kind = raw["kind"]
    reader = ObjectReader(reducer(Resource(kind=kind, path=""), redirect))
    for _ in range(2):  # each warning is logged once
        reader.read(raw_identity(kind, raw), raw)
    assert tuple(record.getMessage() for record in caplog.records) == manifest.object_faults
    assert manifest.object_faults and all(says in each for each in manifest.object_faults)
