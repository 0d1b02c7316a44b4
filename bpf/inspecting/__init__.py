"""What is installed, for people and scripts, and a trial of what this kernel allows.

May import: `bpf` itself, `bpf.maps`, `bpf.cgroups`, `bpf.lifecycle`, `config`.
"""
