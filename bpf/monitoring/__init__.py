"""Decisions about calls as they happen, read from the kernel (`run.py monitor`).

`shared_rows` reads what the programs record, `clients` names who called, `follow` puts both together.

May import: `bpf`, `bpf.explaining`, `config` and `config.domain`.
"""
