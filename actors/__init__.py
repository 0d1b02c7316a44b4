"""The agent and the controller: actors that share nothing but messages.

Facts travel one way: `watching` hears the sources, `resolving` decides what the policies ask for, `writing` puts it
into the kernel, `reporting` tells people. `health` finds out whether the backends serve. `controller` holds what only
the cluster's reporter has. `agent_wiring` and `controller_wiring` say which actors a process has, and are the only
modules that see all of them.

May import: `bpf`, `k8s`, `config`.
"""
