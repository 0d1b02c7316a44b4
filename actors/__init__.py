"""The agent and the controller: actors that share nothing but `messages`. `framework` has what any actor needs.

Facts travel in one direction: `watching` reads the sources, `resolving` decides what the policies ask for, `writing`
writes it to the kernel, and `reporting` shows it to operators. `health` finds out whether the backends work.
`controller` has the actors that only the controller runs. `agent_wiring` and `controller_wiring` say which actors a
process has, and are the only modules that import all of them. `commands` has no actors: these commands run in processes
of their own, and tell people what the agent does.

May import: `bpf`, `k8s`, `config`.
"""
