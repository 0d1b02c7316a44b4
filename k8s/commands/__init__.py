"""Commands that read manifests or change the cluster, and need no actors: `validate`, `convert` and `uninstall`.

`pods` and `access` read the configured source for commands of `actors.commands`.

May import: `k8s.objects`, `k8s.api`, `k8s.sources`, `config`.
"""
