"""The kernel side: the programs (C, in `programs/`), building, loading and attaching them, their maps and rows.

May import: `config`.
"""
