"""Finds out whether backend Pods work, beyond what the API says about them. The resolver tells each actor here which
Pods the policies select, and receives what the actor finds.

May import: `actors.framework`, `actors.messages`, `bpf.cgroups`, `config`.
"""
