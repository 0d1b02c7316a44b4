"""What only the controller has: verdicts on policies in the whole cluster, and writing them to the API server.

May import: `actors.framework`, `actors.messages`, `actors.resolving`, `k8s`, `config`.
"""
