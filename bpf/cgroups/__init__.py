"""Cgroups: the hierarchy, the directories of Pods and containers in it, and whether our programs see Pods' calls.

May import: `bpf` itself, `config`.
"""
