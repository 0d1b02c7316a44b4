"""What only the controller has: the election, verdicts on policies for the whole cluster, and writing them to the API.

May import: `actors.framework`, `actors.messages`, `actors.resolving`, `k8s.objects`, `k8s.api`, `k8s.sources`,
`k8s.status`, `config`.
"""
