"""What only the controller has: the election, verdicts on policies for the whole cluster, and writing them to the API.

May import: `actors.framework`, `actors.messages`, `actors.resolving`, `k8s` (without `k8s.election` and
`k8s.commands`), `config`.
"""
