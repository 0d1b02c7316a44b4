"""Decisions about calls as they happen, read from the kernel (`run.py monitor`).

`shared_rows` reads what the programs record, `clients` names who called, and `follow` makes of both a `named_decision`.
`filters` chooses among these, and `printing` prints them.

May import: `bpf` itself, `bpf.maps`, `bpf.cgroups`, `bpf.lifecycle`, `bpf.explaining`, `config`.
"""
