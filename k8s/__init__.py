"""Kubernetes: its objects as values, where they come from, and what is written back. The only package that imports the
official client.

`objects` is the lowest layer; `api` makes requests to the API server; `sources` deliver objects; `election` elects the
controller's leader, and `status` writes for it; `commands` are for the command line and for
Helm's hook. `crd.yaml`, `install.yaml`, `chart/`, `examples/` and the other YAML files here are what users apply, and
`plugin/` is what they install beside kubectl.

May import: `config`.
"""
