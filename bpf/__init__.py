"""The kernel side: the programs (C, in `programs/`); compiling, loading and attaching them; their maps and rows.

May import: `config`.
"""
